/*
name = "efficiency"
doc = """
One minus the share of actions that repeat an earlier one: 1 = no action taken twice. A turn without an action counts as
one, too, and repeats another that says the same.
"""
*/
select
    steps.rollout_key,
    count(
        distinct case
            when actions.name is null then '?[' || lower(trim(regexp_replace(steps.content, '\s+', ' ', 'g'))) || ']'
            else actions.name || '[' || lower(coalesce(actions.argument, '')) || ']'
        end
    ) / count(*) as score
from steps
left join actions
    on
        steps.rollout_key = actions.rollout_key
        and steps.step = actions.step
group by steps.rollout_key
order by steps.rollout_key
