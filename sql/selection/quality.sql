/*
name = "quality"
doc = """
Quality of a rollout under a profile: the weighted geometric mean of its scores, times `flag_penalty` for every filter that
flagged it. `verdicts` holds the profile's own, `weights` those of the score headers unless the profile says otherwise. A
rollout without a score (no turn at all) has quality 0. Dropped rollouts keep theirs, so that a threshold can be explored
without a new run.
"""

[params]
flag_penalty = { type = "DOUBLE", default = 0.8 }
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
        scores.rollout_key,
        exp(sum(weights.weight * ln(greatest(scores.score, 0.001))) / sum(weights.weight)) as mean_score
    from scores
    inner join weights on scores.score_name = weights.score_name
    where weights.weight > 0
    group by scores.rollout_key
)

select
    rollouts.rollout_key,
    coalesce(means.mean_score, 0.0) * pow($flag_penalty, coalesce(flags.n_flags, 0)) as quality
from rollouts
left join means on rollouts.rollout_key = means.rollout_key
left join flags on rollouts.rollout_key = flags.rollout_key
order by rollouts.rollout_key
