/*
name = "missing_thought"
reason = "most turns have no Thought"
scope = "row"
severity = "flag"
applies_to = "both"
style = "react"
doc = """
More than `max_share` of the turns act without a Thought. The threshold marks rollouts in which thinking is the
exception. Example: two of three turns without Thought: is caught; one of two is not.
"""

[params]
max_share = { type = "DOUBLE", default = 0.5 }
*/
select
    rollout_key,
    null as step,
    count(*) filter (where not starts_with(ltrim(content), 'Thought:')) || ' of ' || count(*) || ' turns' as detail
from steps
group by rollout_key
having count(*) filter (where not starts_with(ltrim(content), 'Thought:')) > $max_share * count(*)
order by rollout_key
