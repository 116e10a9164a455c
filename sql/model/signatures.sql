/*
name = "signatures"
doc = """
What set-level filters compare instead of whole conversations: `text_hash`, of all that the agent said and called,
and `actions_hash`, of its actions with their arguments in lower case. A turn that takes no action stands there with its
words, also in lower case and with single spaces: what it says is all that it does. Rollouts without assistant turns have no
row here.
"""
*/
with taken as (
    select
        steps.rollout_key,
        string_agg(
            case
                when actions.name is null then '?[' || lower(trim(regexp_replace(steps.content, '\s+', ' ', 'g'))) || ']'
                else actions.name || '[' || lower(coalesce(actions.argument, '')) || ']'
            end, chr(30)
            order by steps.step, actions.action
        ) as sequence
    from steps
    left join actions
        on
            steps.rollout_key = actions.rollout_key
            and steps.step = actions.step
    group by steps.rollout_key
)

select
    texts.rollout_key,
    sha256(texts.text) as text_hash,
    sha256(taken.sequence) as actions_hash
from texts
inner join taken on texts.rollout_key = taken.rollout_key
