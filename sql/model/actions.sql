/*
name = "actions"
doc = """
One row per action: the tool calls of a turn in order, or the ReAct action of a turn without calls. `argument` is the text
in the brackets, or the call's arguments as JSON text. `action` counts from 1 within the step.
"""
*/
with called as (
    select
        rollout_key,
        step,
        generate_subscripts(tool_calls, 1) as place,
        unnest(tool_calls) as call
    from turns
    where role = 'assistant' and len(tool_calls) > 0
)

select
    rollout_key,
    step,
    cast(1 as integer) as action,
    action_type as name,
    action_arg as argument
from steps
where n_calls = 0 and action_type is not null
union all
select
    rollout_key,
    step,
    cast(place as integer) as action,
    call.name as name,
    call.arguments as argument
from called
