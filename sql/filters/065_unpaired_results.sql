/*
name = "unpaired_results"
reason = "tool results do not fit their calls"
scope = "row"
severity = "drop"
applies_to = "both"
style = "native"
doc = """
A tool's result follows no call (orphan), a call has no result although the agent went on (missing), an id names two calls
or two results of a turn (doubled), or the results stand in another order than the calls (swapped). A row would teach the
agent to read one call's result as another's: many chat templates write no ids, so that the order alone says which is which.
Calls and results pair by id within a turn; where one of them has no id by number, and those with ids by their places. The
last turn may lack its results, and so may a terminal call: nobody waits for them. Example: calls a, b answered b, a are
caught; answered a, b they are not.
"""
*/
with calls as (
    select
        turns.rollout_key,
        turns.step,
        generate_subscripts(turns.tool_calls, 1) as place,
        unnest(turns.tool_calls) as call
    from turns
    where turns.role = 'assistant' and len(turns.tool_calls) > 0
),

called as (
    select
        calls.rollout_key,
        calls.step,
        list(calls.call.id order by calls.place) as ids,
        list(calls.call.id order by calls.place) filter (
            where not list_contains(tasks.terminal_actions, calls.call.name)
        ) as awaited
    from calls
    inner join rollouts on calls.rollout_key = rollouts.rollout_key
    inner join tasks on rollouts.task = tasks.task
    group by calls.rollout_key, calls.step
),

answered as (
    select
        rollout_key,
        step,
        list(tool_call_id order by position) as ids
    from turns
    where role = 'tool'
    group by rollout_key, step
),

last_steps as (
    select
        rollout_key,
        max(step) as step
    from steps
    group by rollout_key
),

paired as (
    select
        coalesce(called.rollout_key, answered.rollout_key) as rollout_key,
        coalesce(called.step, answered.step) as step,
        coalesce(called.ids, []) as call_ids,
        coalesce(called.awaited, []) as awaited,
        coalesce(answered.ids, []) as result_ids
    from called
    full join answered on called.rollout_key = answered.rollout_key and called.step = answered.step
),

judged as (
    select
        paired.*,
        paired.step = last_steps.step and len(paired.result_ids) = 0 as is_open,
        len(list_filter(paired.call_ids || paired.result_ids, lambda i: coalesce(i, '') = '')) = 0 as has_ids
    from paired
    left join last_steps on paired.rollout_key = last_steps.rollout_key
),

faults as (
    select
        rollout_key,
        step,
        len(call_ids) as n_calls,
        len(result_ids) as n_results,
        case
            when not has_ids and len(result_ids) > len(call_ids) then 'orphan'
            when not has_ids and len(result_ids) < len(awaited) and not is_open then 'missing'
            when not has_ids and len(
                list_filter(
                    result_ids,
                    lambda i: i != ''
                    and list_contains(call_ids, i)
                    and list_position(call_ids, i) != list_position(result_ids, i)
                )
            ) > 0 then 'swapped'
            when not has_ids then null
            when list_unique(call_ids) < len(call_ids) or list_unique(result_ids) < len(result_ids) then 'doubled'
            when not list_has_all(call_ids, result_ids) then 'orphan'
            when not list_has_all(result_ids, awaited) and not is_open then 'missing'
            when list_filter(call_ids, lambda i: list_contains(result_ids, i)) != result_ids then 'swapped'
        end as fault
    from judged
)

select
    rollout_key,
    step,
    fault || ': ' || n_calls || ' calls, ' || n_results || ' results' as detail
from faults
where fault is not null
order by rollout_key, step
