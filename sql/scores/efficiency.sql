/*
name = "efficiency"
doc = """
One minus the share of actions that repeat an earlier one: 1 = no action taken twice. A turn without an action counts as
one, too.
"""
*/
select
    steps.rollout_key,
    count(distinct coalesce(actions.name, '?') || '[' || lower(coalesce(actions.argument, '')) || ']') / count(*) as score
from steps
left join actions
    on
        steps.rollout_key = actions.rollout_key
        and steps.step = actions.step
group by steps.rollout_key
order by steps.rollout_key
