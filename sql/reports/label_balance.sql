/*
name = "label_balance"
doc = """
How answers are spread over the classes, by the scorer that gave the label, and where the scorers disagree. An answer that is
right much more often in one class than in the other is a shortcut: an agent can learn the answer instead of the reasoning.
`n_strict_differs` and `n_lenient_differs` count rollouts whose recorded reward the task's rules contradict. Answers of the
wrong kind are put together, and so are all but the 20 most common of a task.
"""
*/
with answered as (
    select
        rollouts.task,
        labels.label,
        labels.scorer,
        labels.recorded,
        labels.task_strict,
        labels.task_lenient,
        case
            when labels.answer is null then '(none)'
            when not coalesce(labels.is_valid_answer, true) then '(not of the kind asked for)'
            else lower(trim(labels.answer))
        end as said
    from labels
    inner join rollouts on labels.rollout_key = rollouts.rollout_key
),

common as (
    select
        task,
        said,
        row_number() over (partition by task order by count(*) desc, said) as place
    from answered
    group by task, said
),

counted as (
    select
        answered.task,
        answered.label,
        answered.scorer,
        case when common.place <= 20 then answered.said else '(other)' end as answer,
        count(*) as n_rollouts,
        count(*) filter (where answered.recorded != answered.task_strict) as n_strict_differs,
        count(*) filter (where answered.recorded != answered.task_lenient) as n_lenient_differs,
        count(*) filter (where answered.recorded is null) as n_not_recorded
    from answered
    inner join common on answered.task = common.task and answered.said = common.said
    group by all
)

select
    task,
    label,
    scorer,
    answer,
    n_rollouts,
    round(n_rollouts / sum(n_rollouts) over (partition by task, label), 4) as share_of_class,
    n_strict_differs,
    n_lenient_differs,
    n_not_recorded
from counted
order by task asc, label asc, scorer asc, n_rollouts desc, answer asc
