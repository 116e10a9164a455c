/*
name = "low_judgement"
reason = "a judge scored it low"
scope = "row"
severity = "flag"
applies_to = "both"
style = "any"
doc = """
A judge (a model or a person) gave less than `min_score`. Judges work elsewhere: their scores are read from judgements.csv,
so that the same rows always get the same verdicts; without the file nothing is caught. Example: 0.2 is caught, 0.5 and no
score are not.
"""

[params]
min_score = { type = "DOUBLE", default = 0.5 }
*/
select
    rollout_key,
    null as step,
    judge || ': ' || score || case when note = '' then '' else ', ' || left(note, 120) end as detail
from judgements
where score < $min_score
order by rollout_key, judge
