/*
name = "no_finish"
reason = "never finished"
scope = "row"
severity = "drop"
applies_to = "both"
style = "any"
doc = """
The last turn holds none of the task's terminal actions: the agent ran out of turns or wrote something unparsable, so its
outcome says nothing about its reasoning. An agent with tool calls also finishes by a turn without any. Rollouts without any
turn belong to empty_trajectory. Example: ending on search[x] is caught; ending on finish[x] is not.
"""
*/
with last_steps as (
    select
        rollout_key,
        max(step) as step
    from steps
    group by rollout_key
),

last_actions as (
    select
        last_steps.rollout_key,
        last_steps.step,
        list(actions.name order by actions.action) filter (where actions.name is not null) as names
    from last_steps
    left join actions
        on
            last_steps.rollout_key = actions.rollout_key
            and last_steps.step = actions.step
    group by last_steps.rollout_key, last_steps.step
)

select
    last_actions.rollout_key,
    last_actions.step,
    'last action: ' || coalesce(array_to_string(last_actions.names, ', '), 'none') as detail
from last_actions
inner join rollouts on last_actions.rollout_key = rollouts.rollout_key
inner join tasks on rollouts.task = tasks.task
where
    not list_has_any(coalesce(last_actions.names, []), tasks.terminal_actions)
    and not (rollouts.style != 'react' and last_actions.names is null)
order by last_actions.rollout_key
