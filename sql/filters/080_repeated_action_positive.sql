/*
name = "repeated_action_positive"
reason = "repeats an action in a success"
scope = "row"
severity = "drop"
applies_to = "positive"
style = "react"
doc = """
The same action with the same argument (case ignored) twice or more in one rollout. In a success it teaches dithering and is
dropped. Rollouts with tool calls are not asked: running the tests again after an edit is right. Example: search[a],
search[A] is caught; search[a], search[b] is not.
"""

[params]
min_times = { type = "INTEGER", default = 2 }
*/
select
    rollout_key,
    max(step) as step,
    count(*) || ' times ' || any_value(name) || '[' || left(lower(argument), 60) || ']' as detail
from actions
where argument is not null
group by rollout_key, name, lower(argument)
having count(*) >= $min_times
order by rollout_key, step, detail
