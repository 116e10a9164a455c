/*
name = "repeated_action_negative"
reason = "repeats an action"
scope = "row"
severity = "flag"
applies_to = "negative"
doc = """
The same action with the same argument (case ignored) twice or more in one rollout. In a success it teaches dithering and
here, in a failure, it is only marked: being stuck is what failures look like. Example: search[a], search[A] is caught;
search[a], search[b] is not.
"""

[params]
min_times = { type = "INTEGER", default = 2 }
*/
select
    rollout_key,
    max(step) as step,
    count(*) || ' times ' || any_value(action_type) || '[' || left(lower(action_arg), 60) || ']' as detail
from steps
where action_type is not null and action_arg is not null
group by rollout_key, action_type, lower(action_arg)
having count(*) >= $min_times
order by rollout_key, step, detail
