/*
name = "near_duplicate"
reason = "nearly the same as an earlier rollout"
scope = "pairs"
severity = "drop"
applies_to = "both"
style = "any"
doc = """
What the agent said resembles what it said in an earlier rollout of the same label: Jaccard similarity of the 3-word
shingles of at least `min_similarity`. By default only rollouts of one question are compared, since short answers to
different questions are alike without being the same lesson. Every earlier one is named, and the row is dropped only while
one of them is trained. Source of 0.8: the near duplicates of NAT's StrategyQA rollouts begin there. Example: two rollouts
that differ in one word of fifty are caught once.
"""

[params]
min_similarity = { type = "DOUBLE", default = 0.8 }
any_question = { type = "BOOLEAN", default = false }
*/
select
    pairs.rollout_key,
    null as step,
    'similarity ' || round(pairs.similarity, 2) || ' with ' || left(pairs.other_key, 12) as detail,
    pairs.other_key as earlier_key
from pairs
inner join rollouts on pairs.rollout_key = rollouts.rollout_key
inner join rollouts as earlier on pairs.other_key = earlier.rollout_key
where
    pairs.is_earlier
    and pairs.similarity >= $min_similarity
    and rollouts.label = earlier.label
    and rollouts.label != 'unknown'
    and ($any_question or rollouts.question_id = earlier.question_id)
order by pairs.rollout_key, pairs.other_key
