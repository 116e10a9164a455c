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
facts are too common to be a proof; a character of a script without spaces counts three. Case, composed letters and
invisible characters hide nothing. Example: a search result that lists the question and `Answer: Yes` is caught; one about
its subject is not.
"""

[params]
min_chars = { type = "INTEGER", default = 25 }
*/
with quotable as (
    select
        rollout_key,
        'the question' as what,
        question as content
    from rollouts
    union all
    select
        rollout_key,
        'a gold fact' as what,
        unnest(facts) as content
    from rollouts
),

unspaced as (
    select
        rollout_key,
        what,
        content,
        regexp_extract_all(
            content, '[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]'
        ) as characters
    from quotable
),

comparable_quotes as (
    select
        rollout_key,
        what,
        lower(nfc_normalize(regexp_replace(rtrim(content, '. '), '\p{Cf}', '', 'g'))) as quote
    from unspaced
    where length(content) + 2 * len(characters) >= $min_chars
),

comparable_observations as (
    select
        rollout_key,
        step,
        position,
        lower(nfc_normalize(regexp_replace(content, '\p{Cf}', '', 'g'))) as content
    from observations
)

select
    comparable_observations.rollout_key,
    comparable_observations.step,
    comparable_quotes.what || ': ' || left(comparable_quotes.quote, 80) as detail
from comparable_observations
inner join comparable_quotes on comparable_observations.rollout_key = comparable_quotes.rollout_key
where contains(comparable_observations.content, comparable_quotes.quote)
order by comparable_observations.rollout_key, comparable_observations.position, comparable_quotes.what, comparable_quotes.quote
