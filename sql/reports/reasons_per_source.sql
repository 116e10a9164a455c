/*
name = "reasons_per_source"
doc = """
Which filters hit which source (a teacher's run, a temperature) more than others: rollouts of the source and class, the share
a filter hits there, and `lift`, that share over the share in the task's whole class. A lift far from 1 at a large n says that
the source, not the agent, has the defect. Classes apart, since failures have other defects than successes.
"""
*/
with sources as (
    select
        task,
        label,
        source,
        count(*) as n_rollouts
    from corpus
    group by task, label, source
),

classes as (
    select
        task,
        label,
        sum(n_rollouts) as n_rollouts
    from sources
    group by task, label
),

hits as (
    select distinct
        corpus.task,
        corpus.label,
        corpus.source,
        corpus.rollout_key,
        verdicts.filter,
        verdicts.reason
    from verdicts
    inner join corpus on verdicts.task = corpus.task and verdicts.rollout_key = corpus.rollout_key
    where verdicts.severity != 'overruled'
),

counted as (
    select
        task,
        label,
        source,
        filter,
        reason,
        count(*) as n_hit,
        sum(count(*)) over (partition by task, label, filter) as n_hit_in_class
    from hits
    group by task, label, source, filter, reason
)

select
    sources.task,
    sources.source,
    sources.label,
    sources.n_rollouts,
    counted.filter,
    counted.reason,
    counted.n_hit,
    round(counted.n_hit / sources.n_rollouts, 4) as share,
    round((counted.n_hit / sources.n_rollouts) / (counted.n_hit_in_class / classes.n_rollouts), 2) as lift
from counted
inner join sources
    on counted.task = sources.task and counted.label = sources.label and counted.source = sources.source
inner join classes on counted.task = classes.task and counted.label = classes.label
order by sources.task asc, sources.source asc, sources.label asc, counted.n_hit desc, counted.filter asc
