/*
name = "quality_distribution"
doc = """
Quality by profile and class, over the rollouts that no filter drops by its header: quantiles, and what a recipe's
`min_quality` of 0.5, 0.6, 0.7, 0.8 or 0.9 would leave. Quality 0 means that nothing could be scored. Compare the classes
before cutting: failures score lower, so one threshold for both shifts the mix.
"""
*/
with dropped as (
    select distinct
        task,
        rollout_key
    from verdicts
    where severity = 'drop'
),

judged as (
    select
        corpus.task,
        qualities.profile,
        corpus.label,
        qualities.quality
    from corpus
    inner join qualities on corpus.task = qualities.task and corpus.rollout_key = qualities.rollout_key
    anti join dropped on corpus.task = dropped.task and corpus.rollout_key = dropped.rollout_key
)

select
    task,
    profile,
    label,
    count(*) as n_rollouts,
    round(avg(quality), 3) as mean_quality,
    round(quantile_cont(quality, 0.1), 3) as p10,
    round(quantile_cont(quality, 0.25), 3) as p25,
    round(median(quality), 3) as p50,
    round(quantile_cont(quality, 0.75), 3) as p75,
    round(quantile_cont(quality, 0.9), 3) as p90,
    count(*) filter (where quality >= 0.5) as n_from_05,
    count(*) filter (where quality >= 0.6) as n_from_06,
    count(*) filter (where quality >= 0.7) as n_from_07,
    count(*) filter (where quality >= 0.8) as n_from_08,
    count(*) filter (where quality >= 0.9) as n_from_09,
    count(*) filter (where quality = 0) as n_zero
from judged
group by task, profile, label
order by task, profile, label
