/*
name = "no_finish"
reason = "never finished"
scope = "row"
severity = "drop"
applies_to = "both"
doc = """
The last turn is not the task's terminal action: the agent ran out of turns or wrote something unparsable, so its
outcome says nothing about its reasoning. Rollouts without any turn belong to empty_trajectory. Example: ending on
search[x] is caught; ending on finish[x] is not.
"""
*/
with last_steps as (
    select
        rollout_key,
        max(step) as step
    from steps
    group by rollout_key
)

select
    steps.rollout_key,
    steps.step,
    'last action: ' || coalesce(steps.action_type, 'none') as detail
from last_steps
inner join steps
    on
        last_steps.rollout_key = steps.rollout_key
        and last_steps.step = steps.step
inner join rollouts on steps.rollout_key = rollouts.rollout_key
inner join tasks on rollouts.task = tasks.task
where coalesce(steps.action_type, '') != tasks.terminal_action
order by steps.rollout_key
