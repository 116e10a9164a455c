/*
name = "efficiency"
doc = """
One minus the share of turns that repeat an earlier action: 1 = no action taken twice.
"""
*/
select
    rollout_key,
    count(distinct coalesce(action_type, '?') || '[' || lower(coalesce(action_arg, '')) || ']') / count(*) as score
from steps
group by rollout_key
order by rollout_key
