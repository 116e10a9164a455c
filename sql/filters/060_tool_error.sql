/*
name = "tool_error"
reason = "a tool failed"
scope = "row"
severity = "drop"
applies_to = "both"
style = "react"
doc = """
An observation starts with an error: the environment's fault, not the agent's. Anchored, because the word error also
stands in good observations (terror, exceptional). Where agents work by tool calls an error is what a failed test or a wrong
path answers, and to be learned from. Example: `Error: timeout` is caught; `Trial and error is` is not.
"""

[params]
pattern = { type = "VARCHAR", default = '^(Error|Exception|Traceback)\b' }
*/
select
    rollout_key,
    step,
    left(content, 80) as detail
from observations
where regexp_matches(content, $pattern)
order by rollout_key, position
