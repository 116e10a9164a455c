/*
name = "texts"
doc = """
What the agent said: reasoning, text and calls of all its turns, one after another. Near duplicates are found by it. Rollouts
without assistant turns have no row here.
"""
*/
select
    rollout_key,
    string_agg(
        coalesce(reasoning || chr(31), '') || case
            when len(tool_calls) > 0
                then concat_ws(
                    chr(31),
                    content,
                    array_to_string(
                        list_transform(tool_calls, lambda c: concat_ws(' ', c.name, c.arguments)), chr(31)
                    )
                )
            else content
        end,
        chr(30)
        order by position
    ) as text
from turns
where role = 'assistant'
group by rollout_key
