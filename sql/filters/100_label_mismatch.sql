/*
name = "label_mismatch"
reason = "its answer contradicts its label"
scope = "row"
severity = "drop"
applies_to = "both"
style = "any"
doc = """
The answer, read again from the rollout and judged by the task, contradicts the label: a failure whose answer is right, or a
success whose answer is wrong under the lenient rule. In NAT's StrategyQA files these are 5 failures: 2 whose parser kept the
text behind finish[No], and answers such as `Most likely Yes`. Example: label negative, gold yes, finish[Most likely yes] is
caught; finish[Uncertain] is not.
"""
*/
select
    rollout_key,
    null as step,
    'says ' || left(answer, 60) || ', gold ' || left(coalesce(gold, '?'), 60) || ', label ' || label as detail
from rollouts
where
    (label = 'negative' and is_leniently_right)
    or (label = 'positive' and not is_leniently_right)
order by rollout_key
