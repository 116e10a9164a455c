/*
name = "same_actions"
reason = "same actions as an earlier failure"
scope = "group"
severity = "drop"
applies_to = "negative"
doc = """
A failure that takes the same actions with the same arguments as an earlier failure of its question adds no new mistake.
Every earlier twin is named, so that dropping the first re-admits the next. Example: two failures that both search the
same words and finish alike, with other Thoughts, are caught once.
"""
*/
with candidates as (
    select
        rollouts.rollout_key,
        rollouts.task,
        rollouts.question_id,
        rollouts.ingest_seq,
        signatures.actions
    from rollouts
    inner join signatures on rollouts.rollout_key = signatures.rollout_key
    where rollouts.label = 'negative'
)

select
    later.rollout_key,
    null as step,
    'same as ' || left(earlier.rollout_key, 12) as detail,
    earlier.rollout_key as earlier_key
from candidates as later
inner join candidates as earlier
    on
        later.task = earlier.task
        and later.question_id = earlier.question_id
        and later.actions = earlier.actions
        and later.ingest_seq > earlier.ingest_seq
order by later.rollout_key, earlier.rollout_key
