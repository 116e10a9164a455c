/*
name = "same_actions"
reason = "same actions as an earlier failure"
scope = "group"
twins = "nearest"
severity = "drop"
applies_to = "negative"
style = "any"
doc = """
A failure that takes the same actions with the same arguments as an earlier failure of its question adds no new mistake.
A turn without an action counts by its words. The nearest earlier twin is named, and it names its own, so that dropping the
first re-admits the next. Example: two failures that both search the same words and finish alike, with other Thoughts, are
caught once; two that take no action and say different things are not.
"""
*/
with candidates as (
    select
        rollouts.rollout_key,
        lag(rollouts.rollout_key) over (
            partition by rollouts.task, rollouts.question_id, signatures.actions_hash
            order by rollouts.ingest_seq
        ) as earlier_key
    from rollouts
    inner join signatures on rollouts.rollout_key = signatures.rollout_key
    where rollouts.label = 'negative'
)

select
    rollout_key,
    null as step,
    'same as ' || left(earlier_key, 12) as detail,
    earlier_key
from candidates
where earlier_key is not null
order by rollout_key
