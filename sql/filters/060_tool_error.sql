/*
name = "tool_error"
reason = "a tool failed"
scope = "row"
severity = "drop"
applies_to = "both"
doc = """
An observation starts with an error: the environment's fault, not the agent's. Anchored, because the word error also
stands in good observations (terror, exceptional). Example: `Error: timeout` is caught; `Trial and error is` is not.
"""

[params]
pattern = { type = "VARCHAR", default = '^(Error|Exception|Traceback)\b' }
*/
select
    rollout_key,
    step,
    left(observation, 80) as detail
from steps
where regexp_matches(observation, $pattern)
order by rollout_key, step
