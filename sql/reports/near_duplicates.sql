/*
name = "near_duplicates"
doc = """
Rollouts whose agents said nearly the same (Jaccard similarity of 3-word shingles from 0.5), each pair once with both labels,
sources and questions. Two labels for one text of one question are a label error or an answer by luck; alike texts of
different questions are usually short answers. The most alike come first, those with opposite labels before others.
"""
*/
select
    pairs.task,
    round(cast(pairs.similarity as double), 3) as similarity,
    later.label != earlier.label as has_opposite_labels,
    later.question_id = earlier.question_id as is_same_question,
    left(pairs.rollout_key, 12) as later_rollout,
    later.label as later_label,
    later.source as later_source,
    left(pairs.other_key, 12) as earlier_rollout,
    earlier.label as earlier_label,
    earlier.source as earlier_source,
    later_question.question as later_question,
    earlier_question.question as earlier_question
from pairs
inner join corpus as later on pairs.task = later.task and pairs.rollout_key = later.rollout_key
inner join corpus as earlier on pairs.task = earlier.task and pairs.other_key = earlier.rollout_key
left join questions as later_question
    on later.task = later_question.task and later.question_id = later_question.question_id
left join questions as earlier_question
    on earlier.task = earlier_question.task and earlier.question_id = earlier_question.question_id
where pairs.is_earlier and pairs.similarity >= 0.5
order by has_opposite_labels desc, pairs.similarity desc, pairs.rollout_key asc, pairs.other_key asc
