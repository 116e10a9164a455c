/*
name = "decontaminate"
reason = "asks an evaluation question"
scope = "reference"
severity = "drop"
applies_to = "both"
style = "any"
doc = """
Nearly all n-grams of the rollout's question stand in one question of a gate or test split of its task, so training on it
would be training on the test. n falls to the question's length where it has fewer words. Case, width, composition and
invisible characters hide nothing; in a script without spaces each character is a word. Source: 58 % of NAT's StrategyQA
test questions stand verbatim in the training questions. Example: a copied test question is caught, a shared name is not.
"""

[params]
n = { type = "INTEGER", default = 4 }
min_containment = { type = "DOUBLE", default = 0.8 }
*/
with training_grams as (
    select
        questions.task,
        questions.question_id,
        least($n, len(questions.words)) as gram_size,
        unnest(
            list_distinct(
                list_transform(
                    range(1, len(questions.words) - least($n, len(questions.words)) + 2),
                    lambda i: array_to_string(questions.words[i:i + least($n, len(questions.words)) - 1], ' ')
                )
            )
        ) as gram
    from questions
    where
        questions.split not in ('gate', 'test')
        and len(questions.words) > 0
        and (questions.task, questions.question_id) in (select (rollouts.task, rollouts.question_id) from rollouts)
),

gram_sizes as (
    select distinct gram_size
    from training_grams
),

evaluation_grams as (
    select
        questions.task,
        questions.question_id,
        gram_sizes.gram_size,
        unnest(
            list_distinct(
                list_transform(
                    range(1, len(questions.words) - gram_sizes.gram_size + 2),
                    lambda i: array_to_string(questions.words[i:i + gram_sizes.gram_size - 1], ' ')
                )
            )
        ) as gram
    from questions
    cross join gram_sizes
    where
        questions.split in ('gate', 'test')
        and len(questions.words) >= gram_sizes.gram_size
),

gram_counts as (
    select
        task,
        question_id,
        count(*) as n_grams
    from training_grams
    group by task, question_id
),

shared_grams as (
    select
        training_grams.task,
        training_grams.question_id,
        evaluation_grams.question_id as evaluation_id,
        count(*) as n_shared
    from training_grams
    inner join evaluation_grams
        on
            training_grams.task = evaluation_grams.task
            and training_grams.gram_size = evaluation_grams.gram_size
            and training_grams.gram = evaluation_grams.gram
    group by training_grams.task, training_grams.question_id, evaluation_grams.question_id
),

contaminated as (
    select
        shared_grams.task,
        shared_grams.question_id,
        arg_max(shared_grams.evaluation_id, (shared_grams.n_shared, shared_grams.evaluation_id)) as evaluation_id,
        max(shared_grams.n_shared / gram_counts.n_grams) as containment
    from shared_grams
    inner join gram_counts
        on
            shared_grams.task = gram_counts.task
            and shared_grams.question_id = gram_counts.question_id
    where shared_grams.n_shared >= $min_containment * gram_counts.n_grams
    group by shared_grams.task, shared_grams.question_id
)

select
    rollouts.rollout_key,
    null as step,
    'evaluation question ' || contaminated.evaluation_id || ', containment ' || round(contaminated.containment, 2) as detail
from rollouts
inner join contaminated
    on
        rollouts.task = contaminated.task
        and rollouts.question_id = contaminated.question_id
order by rollouts.rollout_key
