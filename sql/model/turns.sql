/*
name = "turns"
doc = """
One row per turn of a rollout: its place from 1, and the agent's step it belongs to (0 before the agent's first turn). A
turn that follows step n and is not the agent's carries n, too: it is what the agent saw after it.
"""
*/
with placed as (
    select
        rollout_key,
        generate_subscripts(conversation, 1) as place,
        unnest(conversation) as turn
    from rollouts
)

select
    rollout_key,
    cast(place as integer) as position,
    cast(count(*) filter (where turn.role = 'assistant') over (partition by rollout_key order by place) as integer) as step,
    turn.role as role,
    coalesce(turn.content, '') as content,
    turn.reasoning as reasoning,
    turn.tool_calls as tool_calls,
    turn.tool_call_id as tool_call_id
from placed
