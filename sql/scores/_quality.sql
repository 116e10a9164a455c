/*
name = "quality"
doc = """
Quality of a rollout: the geometric mean of its scores, times 0.8 for every filter that flagged it. A rollout without a
score (no turn at all) has quality 0. Dropped rollouts keep theirs, so that a threshold can be explored without a new run.
"""
*/
with flags as (
    select
        rollout_key,
        count(distinct filter) as n_flags
    from verdicts
    where severity = 'flag'
    group by rollout_key
),

means as (
    select
        rollout_key,
        exp(avg(ln(greatest(score, 0.001)))) as mean_score
    from scores
    group by rollout_key
)

select
    rollouts.rollout_key,
    coalesce(means.mean_score, 0.0) * pow(0.8, coalesce(flags.n_flags, 0)) as quality
from rollouts
left join means on rollouts.rollout_key = means.rollout_key
left join flags on rollouts.rollout_key = flags.rollout_key
order by rollouts.rollout_key
