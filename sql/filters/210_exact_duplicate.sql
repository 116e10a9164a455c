/*
name = "exact_duplicate"
reason = "same text as an earlier rollout"
scope = "group"
severity = "drop"
applies_to = "both"
doc = """
The agent's turns equal those of an earlier rollout of the same question. Every earlier twin is named, so that dropping
the first re-admits the next. Example: the same failure sampled at two temperatures is caught once.
"""
*/
with candidates as (
    select
        rollouts.rollout_key,
        rollouts.task,
        rollouts.question_id,
        rollouts.ingest_seq,
        signatures.said
    from rollouts
    inner join signatures on rollouts.rollout_key = signatures.rollout_key
    where rollouts.label != 'unknown'
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
        and later.said = earlier.said
        and later.ingest_seq > earlier.ingest_seq
order by later.rollout_key, earlier.rollout_key
