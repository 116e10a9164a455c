/*
name = "format"
style = "react"
doc = """
Share of turns that parse as Thought and one action: 1 = all of them, a turn without a Thought counts half.
"""
*/
select
    rollout_key,
    avg(
        case
            when action_type is not null and n_action_markers = 1 and text_after_action is null
                then case when starts_with(ltrim(content), 'Thought:') then 1.0 else 0.5 end
            else 0.0
        end
    ) as score
from steps
group by rollout_key
order by rollout_key
