/*
name = "steps"
doc = """
One row per assistant turn, counted from 1, parsed as ReAct text: Thought, then Action: name[argument]. Where a turn has tool
calls its text is no ReAct text, but it is parsed all the same: filters of style react are not asked about such rollouts.
Rollouts without assistant turns have no row here.
"""
*/
select
    rollout_key,
    step,
    content,
    reasoning,
    cast(len(coalesce(tool_calls, [])) as integer) as n_calls,
    nullif(regexp_extract(content, '(?s)^\s*Thought:\s*(.*?)\s*(?:\n\s*Action:|$)', 1), '') as thought,
    nullif(regexp_extract(content, '(?:^|\n)Action:\s*([A-Za-z_]\w*)\[', 1), '') as action_type,
    nullif(regexp_extract(content, '(?s)(?:^|\n)Action:\s*[A-Za-z_]\w*\[(.*)\]', 1), '') as action_arg,
    cast((length(content) - length(replace(content, 'Action:', ''))) // length('Action:') as integer) as n_action_markers,
    nullif(
        regexp_replace(
            regexp_extract(content, '(?s)(?:^|\n)Action:\s*[A-Za-z_]\w*\[.*\](.*)$', 1), '^\s+|\s+$', '', 'g'
        ),
        ''
    ) as text_after_action
from turns
where role = 'assistant'
