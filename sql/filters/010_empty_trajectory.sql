/*
name = "empty_trajectory"
reason = "no agent turn"
scope = "row"
severity = "drop"
applies_to = "both"
style = "any"
doc = """
A rollout without a single assistant turn holds nothing to learn. In NAT's StrategyQA files these are 7 failures whose
first reply did not parse. Example: conversation [] is caught; one assistant turn is not.
"""
*/
select
    rollouts.rollout_key,
    null as step,
    'no assistant turn' as detail
from rollouts
where
    not exists (
        select 1
        from steps
        where steps.rollout_key = rollouts.rollout_key
    )
order by rollouts.rollout_key
