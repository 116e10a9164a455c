/*
name = "length_bounds"
reason = "too short or too long"
scope = "row"
severity = "drop"
applies_to = "both"
style = "any"
doc = """
The agent's turns hold fewer characters than the task needs at least, or more than the longest row that any recipe of the
task trains could hold at `max_chars_per_token` characters a token, which few texts reach: what passes may still be cut or
dropped when it is tokenized, by the count of its tokens. Example: under a limit of 512 tokens a rollout of 10,000
characters is caught.
"""

[params]
max_chars_per_token = { type = "INTEGER", default = 12 }
*/
with lengths as (
    select
        rollout_key,
        sum(length(text)) as n_chars
    from texts
    group by rollout_key
)

select
    lengths.rollout_key,
    null as step,
    lengths.n_chars || ' characters' as detail
from lengths
inner join rollouts on lengths.rollout_key = rollouts.rollout_key
inner join tasks on rollouts.task = tasks.task
where
    lengths.n_chars < tasks.min_chars
    or lengths.n_chars > tasks.max_tokens * $max_chars_per_token
order by lengths.rollout_key
