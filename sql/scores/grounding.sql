/*
name = "grounding"
style = "react"
doc = """
Share of the content words (4 letters or more) of the last Thought that stand in the question or in what the tools answered
before it: 1 = all of them. A conclusion in other words than the evidence's is a guess more often. Rollouts without a last
Thought, or without anything observed, have no such score.
Of a long Thought the beginning is read.
"""

[params]
max_chars = { type = "INTEGER", default = 400 }
*/
with last_thoughts as (
    select
        rollout_key,
        arg_max(thought, step) as thought
    from steps
    group by rollout_key
    having arg_max(thought, step) is not null
),

evidence as (
    select
        rollout_key,
        string_agg(lower(content), ' ') as seen
    from observations
    group by rollout_key
),

words as (
    select
        last_thoughts.rollout_key,
        lower(coalesce(rollouts.question, '')) || ' ' || evidence.seen as seen,
        list_distinct(regexp_extract_all(lower(left(last_thoughts.thought, $max_chars)), '[a-z]{4,}')) as content_words
    from last_thoughts
    inner join evidence on last_thoughts.rollout_key = evidence.rollout_key
    inner join rollouts on last_thoughts.rollout_key = rollouts.rollout_key
)

select
    rollout_key,
    len(list_filter(content_words, lambda w: contains(seen, w))) / len(content_words) as score
from words
where len(content_words) > 0
order by rollout_key
