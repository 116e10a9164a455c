/*
name = "choice"
doc = """
Which of the candidates are trained: of each class a share by a fixed draw per rollout, so many a question, so many in all;
the two limits by order of arrival. Draws are md5 of seed and key, so what lands later never reshuffles what was chosen
before.
"""

[params]
seed = { type = "VARCHAR", default = "0" }
*/
with drawn as (
    select
        candidates.rollout_key,
        candidates.question_id,
        candidates.label,
        candidates.ingest_seq,
        limits.rate,
        limits.max_per_question,
        limits.max_rows,
        cast(md5_number_lower($seed || candidates.rollout_key) as double) / 18446744073709551616.0 as u
    from candidates
    inner join limits on candidates.label = limits.label
),

placed as (
    select
        *,
        row_number() over (partition by question_id, label order by ingest_seq) as place_in_question
    from drawn
    where u < rate
),

kept as (
    select
        *,
        row_number() over (partition by label order by ingest_seq) as place
    from placed
    where max_per_question is null or place_in_question <= max_per_question
)

select
    drawn.rollout_key,
    drawn.u,
    case
        when drawn.u >= drawn.rate then 'mix: not drawn at rate ' || drawn.rate
        when kept.rollout_key is null
            then 'mix: ' || drawn.max_per_question || ' ' || drawn.label || ' rows of its question are enough'
        when kept.place > kept.max_rows then 'mix: ' || drawn.max_rows || ' ' || drawn.label || ' rows are enough'
        else ''
    end as why_not
from drawn
left join kept on drawn.rollout_key = kept.rollout_key
order by drawn.ingest_seq
