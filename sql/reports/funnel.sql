/*
name = "funnel"
doc = """
What every filter hits, by class, whatever a profile makes of it: rollouts hit, their share of their class in the task, how
many no other dropping filter hits, how many a person set aside. A filter with a large `n_only_this` decides alone; one whose
share differs much between the classes teaches a shortcut. A filter that several profiles set differently has a row for each
of its versions.
"""
*/
with classes as (
    select
        task,
        count(*) filter (where label = 'positive') as n_positive,
        count(*) filter (where label = 'negative') as n_negative
    from corpus
    group by task
),

hits as (
    select
        verdicts.task,
        verdicts.rollout_key,
        verdicts.filter,
        verdicts.version,
        verdicts.reason,
        corpus.label,
        count(*) as n_places,
        bool_or(verdicts.severity = 'drop') as is_drop,
        bool_or(verdicts.severity = 'overruled') as is_overruled
    from verdicts
    inner join corpus on verdicts.task = corpus.task and verdicts.rollout_key = corpus.rollout_key
    group by all
),

droppers as (
    select
        rollout_key,
        count(distinct filter) as n_filters
    from hits
    where is_drop
    group by rollout_key
)

select
    hits.task,
    hits.filter,
    left(hits.version, 8) as version,
    hits.reason,
    case when bool_or(hits.is_drop) then 'drop' when bool_and(hits.is_overruled) then 'overruled' else 'flag' end as severity,
    count(*) filter (where hits.label = 'positive') as n_positive,
    count(*) filter (where hits.label = 'negative') as n_negative,
    count(*) filter (where hits.label = 'unknown') as n_unknown,
    round(count(*) filter (where hits.label = 'positive') / nullif(any_value(classes.n_positive), 0), 4) as share_of_positive,
    round(count(*) filter (where hits.label = 'negative') / nullif(any_value(classes.n_negative), 0), 4) as share_of_negative,
    count(*) filter (where hits.is_drop and droppers.n_filters = 1) as n_only_this,
    count(*) filter (where hits.is_overruled) as n_overruled,
    cast(sum(hits.n_places) as bigint) as n_places
from hits
inner join classes on hits.task = classes.task
left join droppers on hits.rollout_key = droppers.rollout_key
group by hits.task, hits.filter, hits.version, hits.reason
order by hits.task asc, severity asc, count(*) desc, hits.filter asc, version asc
