/*
name = "effort"
applies_to = "negative"
doc = """
How much a failure tried before it answered: a third, plus a third for each different action, up to 1. A failure that looked
things up shows where reasoning goes wrong; one that guessed at once shows little.
"""
*/
with tried as (
    select
        steps.rollout_key,
        count(distinct actions.name || '[' || lower(coalesce(actions.argument, '')) || ']') filter (
            where not list_contains(tasks.terminal_actions, actions.name)
        ) as n_actions
    from steps
    inner join rollouts on steps.rollout_key = rollouts.rollout_key
    inner join tasks on rollouts.task = tasks.task
    left join actions
        on
            steps.rollout_key = actions.rollout_key
            and steps.step = actions.step
    group by steps.rollout_key
)

select
    rollout_key,
    least(1.0, (1 + n_actions) / 3) as score
from tried
order by rollout_key
