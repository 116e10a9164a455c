/*
name = "signatures"
doc = """
What set-level filters compare instead of whole conversations: `said`, a hash of all the agent's turns, and `actions`, a hash
of its actions with their arguments in lower case. Rollouts without assistant turns have no row here. Computed once a row.
"""
*/
select
    rollout_key,
    sha256(string_agg(content, chr(30) order by step)) as said,
    sha256(
        string_agg(coalesce(action_type, '?') || '[' || lower(coalesce(action_arg, '')) || ']', chr(30) order by step)
    ) as actions
from steps
group by rollout_key
order by rollout_key
