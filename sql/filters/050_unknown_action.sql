/*
name = "unknown_action"
reason = "calls a tool that was not offered"
scope = "row"
severity = "drop"
applies_to = "both"
style = "any"
doc = """
The action's name is neither among the tools that the rollout says it was offered nor among the task's; where neither names
any, nothing is known and nothing caught. Example: calculate[1+1] in a task that offers search and finish is caught.
"""
*/
with offers as (
    select
        rollouts.rollout_key,
        tasks.terminal_actions || case
            when json_valid(rollouts.tools)
                then
                    list_concat(
                        json_extract_string(rollouts.tools, '$[*].function.name'),
                        json_extract_string(rollouts.tools, '$[*].name')
                    )
            else tasks.allowed_actions
        end as names
    from rollouts
    inner join tasks on rollouts.task = tasks.task
    where json_valid(rollouts.tools) or len(tasks.allowed_actions) > 0
)

select
    actions.rollout_key,
    actions.step,
    'action ' || actions.name as detail
from actions
inner join offers on actions.rollout_key = offers.rollout_key
where not list_contains(offers.names, actions.name)
order by actions.rollout_key, actions.step, actions.action
