/*
name = "empty_observation"
reason = "a tool answered nothing"
scope = "row"
severity = "drop"
applies_to = "both"
style = "react"
doc = """
An observation holds fewer than `min_chars` characters: the tool was down, and the agent went on without what it had asked
for. A command that prints nothing is no fault, so rollouts with tool calls are not asked. Example: `Observation:` with
nothing behind it is caught; `Observation: 42` is not where min_chars is 1.
"""

[params]
min_chars = { type = "INTEGER", default = 1 }
*/
select
    rollout_key,
    step,
    length(content) || ' characters' as detail
from observations
where length(content) < $min_chars
order by rollout_key, position
