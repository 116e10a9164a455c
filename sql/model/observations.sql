/*
name = "observations"
doc = """
One row per turn that the agent was shown after one of its steps, without the word Observation: before it. After tool calls
only tool turns count, since a user's turn there is a person's.
"""
*/
select
    turns.rollout_key,
    turns.step,
    turns.position,
    regexp_replace(regexp_replace(turns.content, '^\s*Observation:', ''), '^\s+|\s+$', '', 'g') as content
from turns
inner join steps
    on
        turns.rollout_key = steps.rollout_key
        and turns.step = steps.step
where turns.role = 'tool' or (turns.role = 'user' and steps.n_calls = 0)
