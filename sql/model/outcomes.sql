/*
name = "outcomes"
doc = """
One row per rollout: the style the agent spoke in, and the answer it gave. native: some turn has tool calls. react: the
task's agents speak so, or some turn has an Action:. text: neither. The answer is the argument of the last action where that
is terminal (of a call's arguments the answer, result or message in them). Where an agent that writes no ReAct calls nothing
in its last turn, that turn is its `last_words`: a whole sentence as a rule, which the answer stands in.
"""
*/
with spoken as (
    select
        rollout_key,
        max(step) as last_step,
        max(n_calls) as max_calls,
        max(n_action_markers) as max_markers
    from steps
    group by rollout_key
),

last_actions as (
    select
        rollout_key,
        step,
        arg_max(name, action) as name,
        arg_max(argument, action) as argument
    from actions
    group by rollout_key, step
)

select
    rollouts.rollout_key,
    case
        when spoken.max_calls > 0 then 'native'
        when tasks.style = 'react' or spoken.max_markers > 0 then 'react'
        else 'text'
    end as style,
    regexp_replace(
        case
            when not list_contains(tasks.terminal_actions, last_actions.name) then null
            when steps.n_calls = 0 then last_actions.argument
            when json_valid(last_actions.argument)
                then coalesce(
                    last_actions.argument ->> '$.answer',
                    last_actions.argument ->> '$.result',
                    last_actions.argument ->> '$.message'
                )
        end,
        '^\s+|\s+$', '', 'g'
    ) as answer,
    case
        when steps.n_calls = 0 and (spoken.max_calls > 0 or (tasks.style != 'react' and spoken.max_markers = 0))
            then nullif(regexp_replace(steps.content, '^\s+|\s+$', '', 'g'), '')
    end as last_words
from rollouts
inner join tasks on rollouts.task = tasks.task
left join spoken on rollouts.rollout_key = spoken.rollout_key
left join steps
    on
        spoken.rollout_key = steps.rollout_key
        and spoken.last_step = steps.step
left join last_actions
    on
        spoken.rollout_key = last_actions.rollout_key
        and spoken.last_step = last_actions.step
