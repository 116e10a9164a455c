/*
name = "exact_duplicate"
reason = "same text as an earlier rollout"
scope = "group"
twins = "nearest"
severity = "drop"
applies_to = "both"
style = "any"
doc = """
The agent's turns equal those of an earlier rollout of the same question. The nearest earlier twin is named, and it names its
own, so that dropping the first re-admits the next. Example: the same failure sampled at two temperatures is caught once.
"""
*/
with candidates as (
    select
        rollouts.rollout_key,
        lag(rollouts.rollout_key) over (
            partition by rollouts.task, rollouts.question_id, signatures.text_hash
            order by rollouts.ingest_seq
        ) as earlier_key
    from rollouts
    inner join signatures on rollouts.rollout_key = signatures.rollout_key
    where rollouts.label != 'unknown'
)

select
    rollout_key,
    null as step,
    'same as ' || left(earlier_key, 12) as detail,
    earlier_key
from candidates
where earlier_key is not null
order by rollout_key
