/*
name = "contrast_too_close"
reason = "a failure that reads like a success"
scope = "pairs"
severity = "flag"
applies_to = "negative"
style = "any"
doc = """
The failure resembles a success of the same question (Jaccard similarity of the 3-word shingles of at least
`min_similarity`): nearly the same text is trained under opposite prompts, which teaches little and hints at a wrong label.
A success that lands later marks old failures, too, which costs them quality and never drops them. Example: failure and
success that differ in the last word only are caught; different searches are not.
"""

[params]
min_similarity = { type = "DOUBLE", default = 0.5 }
*/
select
    pairs.rollout_key,
    null as step,
    'similarity ' || round(pairs.similarity, 2) || ' with the success ' || left(pairs.other_key, 12) as detail,
    cast(null as varchar) as earlier_key
from pairs
inner join rollouts on pairs.rollout_key = rollouts.rollout_key
inner join rollouts as others on pairs.other_key = others.rollout_key
where
    pairs.similarity >= $min_similarity
    and rollouts.label = 'negative'
    and others.label = 'positive'
    and rollouts.question_id = others.question_id
order by pairs.rollout_key, pairs.other_key
