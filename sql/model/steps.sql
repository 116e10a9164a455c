/*
name = "steps"
doc = """
One row per assistant turn, parsed as ReAct text: Thought, then Action: name[argument]; `observation` is the turn that
follows it. Rollouts without assistant turns have no row here. Steps count from 1.
"""
*/
with turns as (
    select
        rollout_key,
        unnest(conversation) as turn,
        generate_subscripts(conversation, 1) as position
    from rollouts
),

followed as (
    select
        rollout_key,
        position,
        turn.role as role,
        turn.content as content,
        lead(turn.role) over (partition by rollout_key order by position) as next_role,
        lead(turn.content) over (partition by rollout_key order by position) as next_content
    from turns
)

select
    rollout_key,
    cast(row_number() over (partition by rollout_key order by position) as integer) as step,
    content,
    nullif(regexp_extract(content, '^\s*Thought:\s*(.*?)\s*(?:\n\s*Action:|$)', 1, 's'), '') as thought,
    nullif(regexp_extract(content, '(?:^|\n)Action:\s*([A-Za-z_]\w*)\[', 1), '') as action_type,
    nullif(regexp_extract(content, '(?:^|\n)Action:\s*[A-Za-z_]\w*\[(.*)\]', 1, 's'), '') as action_arg,
    cast((length(content) - length(replace(content, 'Action:', ''))) // length('Action:') as integer) as n_action_markers,
    nullif(
        regexp_replace(
            regexp_extract(content, '(?:^|\n)Action:\s*[A-Za-z_]\w*\[.*\](.*)$', 1, 's'), '^\s+|\s+$', '', 'g'
        ),
        ''
    ) as text_after_action,
    case
        when next_role in ('user', 'tool')
            then regexp_replace(regexp_replace(next_content, '^\s*Observation:', ''), '^\s+|\s+$', '', 'g')
    end as observation
from followed
where role = 'assistant'
order by rollout_key, step
