/*
name = "benchmark_leak"
reason = "an observation quotes the benchmark"
scope = "row"
severity = "drop"
applies_to = "both"
style = "any"
doc = """
An observation holds the rollout's question or one of its gold facts word for word, `min_chars` characters at least: the
search found the benchmark itself, sometimes with the label, so the agent did not have to reason. Shorter questions and
facts are too common to be a proof. Example: a search result that lists the question and `Answer: Yes` is caught; one about
its subject is not.
"""

[params]
min_chars = { type = "INTEGER", default = 25 }
*/
with quotable as (
    select
        rollout_key,
        'the question' as what,
        lower(question) as quote
    from rollouts
    where length(question) >= $min_chars
    union all
    select
        rollout_key,
        'a gold fact' as what,
        lower(rtrim(unnest(list_filter(facts, lambda f: length(f) >= $min_chars)), '. ')) as quote
    from rollouts
)

select
    observations.rollout_key,
    observations.step,
    quotable.what || ': ' || left(quotable.quote, 80) as detail
from observations
inner join quotable on observations.rollout_key = quotable.rollout_key
where contains(lower(observations.content), quotable.quote)
order by observations.rollout_key, observations.position, quotable.what, quotable.quote
