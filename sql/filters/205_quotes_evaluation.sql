/*
name = "quotes_evaluation"
reason = "holds an evaluation question's text"
scope = "reference"
severity = "drop"
applies_to = "both"
style = "any"
doc = """
Some turn of the rollout, an observation mostly, holds `min_share` of the n-grams (13 words) of a gate or test question of
its task: training on it shows the model that question. decontaminate compares the asked question, this all of the text.
Questions with fewer than 13 words count whole, from 8 words on; shorter ones are too common. n and the 8 are trajtok's
settings (quotes in sql/README.md). Example: a search result with a test question in it is caught; one with eight words in
common is not.
"""

[params]
min_share = { type = "DOUBLE", default = 0.8 }
*/
select
    rollout_key,
    null as step,
    'evaluation question ' || question_id || ', ' || n_shared || ' of ' || n_ngrams || ' n-grams' as detail
from quotes
where n_shared >= $min_share * n_ngrams
order by rollout_key, question_id
