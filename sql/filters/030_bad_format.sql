/*
name = "bad_format"
reason = "a turn does not parse"
scope = "row"
severity = "drop"
applies_to = "both"
style = "react"
doc = """
Several Action: markers in one turn, text after the action's bracket, or an Observation: that the agent wrote itself.
Such turns teach a format that the loop cannot execute. Example: `Action: It seems ... Action: search[x]` is caught.
"""
*/
select
    rollout_key,
    step,
    case
        when n_action_markers > 1 then 'several Action: markers'
        when text_after_action is not null then 'text after the action: ' || left(text_after_action, 60)
        when regexp_matches(action_arg, '^[^\[]*\]') then 'text after the action: ' || left(action_arg, 60)
        else 'an Observation: written by the agent'
    end as detail
from steps
where
    n_action_markers > 1
    or text_after_action is not null
    or regexp_matches(action_arg, '^[^\[]*\]')
    or (contains(content, 'Observation:') and regexp_matches(content, '(^|\n)Observation:'))
order by rollout_key, step
