/*
name = "unknown_action"
reason = "calls a tool that was not offered"
scope = "row"
severity = "drop"
applies_to = "both"
doc = """
The action's name is not among the task's tools and its terminal action. Example: calculate[1+1] in a task that offers
search and finish is caught.
"""
*/
select
    steps.rollout_key,
    steps.step,
    'action ' || steps.action_type as detail
from steps
inner join rollouts on steps.rollout_key = rollouts.rollout_key
inner join tasks on rollouts.task = tasks.task
where
    steps.action_type is not null
    and not list_contains(tasks.allowed_actions, steps.action_type)
order by steps.rollout_key, steps.step
