/*
name = "no_tool_use"
reason = "answers without asking a tool"
scope = "row"
severity = "flag"
applies_to = "both"
style = "any"
doc = """
Fewer than `min_actions` actions besides the terminal one: the agent answered from memory, which teaches guessing where the
task is to look things up. Example: a rollout that is only finish[yes] is caught; search[x], finish[yes] is not.
"""

[params]
min_actions = { type = "INTEGER", default = 1 }
*/
with used as (
    select
        steps.rollout_key,
        count(actions.name) filter (where not list_contains(tasks.terminal_actions, actions.name)) as n_actions
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
    null as step,
    n_actions || ' actions before the answer' as detail
from used
where n_actions < $min_actions
order by rollout_key
