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
    case
        when regexp_matches(content, '^\s*Thought:')
            then
                nullif(
                    regexp_replace(
                        regexp_replace(split_part(content, 'Action:', 1), '^\s*Thought:\s*', ''), '\s+$', ''
                    ),
                    ''
                )
    end as thought,
    nullif(regexp_extract(content, '(?:^|\n)Action:\s*([A-Za-z_]\w*)\[', 1), '') as action_type,
    nullif(regexp_extract(content, '(?s)(?:^|\n)Action:\s*[A-Za-z_]\w*\[(.*)\]', 1), '') as action_arg,
    cast((length(content) - length(replace(content, 'Action:', ''))) // length('Action:') as integer) as n_action_markers,
    case
        when not suffix(content, ']')
            then
                nullif(
                    regexp_replace(
                        regexp_extract(content, '(?s)(?:^|\n)Action:\s*[A-Za-z_]\w*\[.*\](.*)$', 1), '^\s+|\s+$', '', 'g'
                    ),
                    ''
                )
    end as text_after_action
from turns
where role = 'assistant'
