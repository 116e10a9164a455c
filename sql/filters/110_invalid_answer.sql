/*
name = "invalid_answer"
reason = "its answer is not of the asked kind"
scope = "row"
severity = "flag"
applies_to = "negative"
style = "any"
doc = """
The task asks for yes or no, or for a number, and the answer is neither: a hedge, a name, a sentence. It is a failure of
form, which teaches less about reasoning than a wrong answer does. The task says what it accepts. Example: finish[Uncertain]
to a yes/no question is caught; a plain wrong `No` is not.
"""
*/
select
    rollout_key,
    null as step,
    'says ' || left(answer, 80) as detail
from rollouts
where not is_valid_answer
order by rollout_key
