"""Chooses what a recipe trains on: its profile's verdicts, its class rule, its mix; and says why not for all the rest."""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from negtraj_dagster import paths, sql
from negtraj_dagster.errors import ContaminationError, SettingsError
from negtraj_dagster.schema import digest_json
from negtraj_dagster.settings import did_you_mean, read_toml
from negtraj_dagster.store import Built, Published, Store
from negtraj_dagster.tables import frame_digest
from negtraj_dagster.trajectories.corpus import ALWAYS_DROPPING

SELECTION_VERSION = 1
WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Mix:
    """How many rows of each class are trained, in order of arrival, and how often each stands in an epoch."""

    max_per_class: Mapping[str, int | None]
    repeat: Mapping[str, int]


@dataclass(frozen=True)
class SelectionRule:
    """A recipe's slice for this stage."""

    recipe: str
    profile: str
    classes: tuple[str, ...]
    mix: Mix
    min_quality: float
    allow_contaminated: bool

    def slice_digest(self) -> str:
        """Identity of the rule, the recipe's name left out: recipes that select alike have equal content."""
        body = [self.classes, dict(self.mix.max_per_class), dict(self.mix.repeat), self.min_quality]
        nearest = sorted(filter_.name for filter_ in sql.load_filters() if filter_.names_nearest_twin)
        return digest_json([*body, self.allow_contaminated, sorted(dropping_filters(self.profile)), nearest])


def dropping_filters(profile: str) -> frozenset[str]:
    """Names of the filters whose verdicts exclude a rollout under a profile.

    Raises:
        SettingsError: an unknown profile, or a profile that names an unknown filter.
    """
    folder = paths.shipped("sql") / "profiles"
    file = folder / f"{profile}.toml"
    known = sorted(path.stem for path in folder.glob("*.toml"))
    if profile not in known:
        raise SettingsError(f"unknown quality profile {profile!r}{did_you_mean(profile, known)}")
    by_name = {filter_.name: filter_ for filter_ in sql.load_filters()}
    only = read_toml(file).get("only")
    for name in only or ():
        if name not in by_name:
            raise SettingsError(f"{file}: unknown filter {name!r}{did_you_mean(name, by_name)}")
    names = (name for name, filter_ in by_name.items() if filter_.severity == "drop" and (only is None or name in only))
    return frozenset({*ALWAYS_DROPPING, *names})


def select_rollouts(store: Store, corpus: Published, questions: Published, rule: SelectionRule, task: str) -> Published:
    """The recipe's training selection.

    Raises:
        ContaminationError: a selected row asks a question of a gate or test split, and the recipe does not allow it.
    """
    made_of = {
        "code": SELECTION_VERSION,
        "trajectory_corpus": corpus.version,
        "questions": questions.content["tasks"].get(task, {}).get("rows", "none"),
        "rule": rule.slice_digest(),
    }
    asset = f"{rule.recipe}/training_selection"
    return store.build(asset, made_of, lambda folder: _select(store, folder, corpus, questions, rule, task))


def _select(store: Store, folder: Path, corpus: Published, questions: Published, rule: SelectionRule, task: str) -> Built:
    if corpus.is_empty:
        return Built(content=corpus.content)
    rows = pl.read_parquet(store.file(corpus.folder, "corpus.parquet"), glob=False)
    verdicts = pl.read_parquet(store.file(corpus.folder, "verdicts.parquet"), glob=False)
    asked = pl.read_parquet(store.file(questions.folder, "questions.parquet"), glob=False)
    chosen = _choose(_why_dropped(rows, verdicts, rule), rule)
    n_contaminated = _check_contamination(chosen, asked, rule, task)
    chosen.rechunk().write_parquet(folder / "selection.parquet")
    selected = chosen.filter("selected")
    if selected.is_empty():
        raise SettingsError(
            f"recipe {rule.recipe}: no rollout of {rows.height} is selected under profile {rule.profile!r} and classes "
            f"{rule.classes}; reasons: {_count_reasons(chosen)}. Loosen the profile or the classes"
        )
    counts = dict(selected["class"].value_counts().rows())
    return Built(
        content={
            "selection": frame_digest(selected),
            "n_selected": selected.height,
            "n_contaminated": n_contaminated,
        },
        details={
            "n_by_class": {name: counts.get(name, 0) for name in rule.classes},
            "rows_per_epoch": int(selected["repeat"].sum()),
            "why_not": _count_reasons(chosen),
        },
        work={"rows_considered": rows.height},
    )


def _count_reasons(chosen: pl.DataFrame) -> dict[str, int]:
    """How many rows each reason leaves out, the particulars after its colon apart."""
    counted = Counter(dict(chosen["why_not"].value_counts().rows()))
    made: Counter[str] = Counter()
    for reason, n in counted.items():
        made[reason.split(":")[0]] += n
    del made[""]
    return dict(sorted(made.items(), key=lambda pair: (-pair[1], pair[0])))


def _why_dropped(rows: pl.DataFrame, verdicts: pl.DataFrame, rule: SelectionRule) -> pl.DataFrame:
    """Rows in order of arrival with `why`: the first reason each is dropped, empty where it survives.

    A duplicate is dropped only while an earlier twin can be trained.
    """
    hits = verdicts.filter((pl.col("severity") == "drop") & pl.col("filter").is_in(list(dropping_filters(rule.profile))))
    alone = hits.filter(pl.col("earlier_key").is_null()).unique("rollout_key", keep="last", maintain_order=True)
    named = alone.select("rollout_key", why=pl.concat_str(pl.lit("filter "), "filter"))
    class_reason = (
        pl.when(~pl.col("label").is_in(list(rule.classes)))
        .then(pl.concat_str(pl.lit("class "), "label", pl.lit(": not trained by this strategy")))
        .when(pl.col("quality") < rule.min_quality)
        .then(pl.lit(f"quality below {rule.min_quality}"))
        .otherwise(pl.lit(""))
    )
    judged = rows.join(named, on="rollout_key", how="left", maintain_order="left")
    judged = judged.with_columns(why=pl.coalesce("why", class_reason)).sort("ingest_seq")
    twins = hits.drop_nulls("earlier_key").select("rollout_key", "filter", "earlier_key")
    return _drop_twins(judged, twins) if twins.height else judged


def _drop_twins(judged: pl.DataFrame, twins: pl.DataFrame) -> pl.DataFrame:
    """Drop every row that has a surviving earlier twin; asked in order of arrival, since a dropped twin admits the next."""
    is_nearest = {filter_.name: filter_.names_nearest_twin for filter_ in sql.load_filters()}
    earlier: dict[str, list[tuple[str, str]]] = {}
    for key, name, twin in twins.sort("rollout_key", "filter", "earlier_key").rows():
        earlier.setdefault(key, []).append((name, twin))
    survivors = set(judged.filter(pl.col("why") == "")["rollout_key"].to_list())
    surviving: dict[tuple[str, str], str] = {}  # (filter, row) -> the nearest survivor among it and its earlier twins
    why: dict[str, str] = {}
    concerned = pl.DataFrame({"rollout_key": list(earlier)})
    for key in judged.join(concerned, on="rollout_key", how="semi", maintain_order="left")["rollout_key"].to_list():
        for name, twin in earlier[key]:
            first = surviving.get((name, twin)) or (twin if twin in survivors else "")
            if first and key in survivors:
                why[key] = f"filter {name}: of {first[:12]}"
                survivors.remove(key)
            if first and is_nearest.get(name):
                surviving[name, key] = first
    made = pl.DataFrame(list(why.items()), schema={"rollout_key": pl.String, "twin": pl.String}, orient="row")
    joined = judged.join(made, on="rollout_key", how="left", maintain_order="left")
    return joined.with_columns(why=pl.coalesce("twin", "why")).drop("twin")


def _choose(judged: pl.DataFrame, rule: SelectionRule) -> pl.DataFrame:
    """All rows with what is selected: of the survivors, the first arrivals of each class up to its limit."""
    survives = pl.col("why") == ""
    limits = {label: limit for label, limit in rule.mix.max_per_class.items() if limit is not None}
    limit = pl.col("label").replace_strict(limits, default=None, return_dtype=pl.Int64) if limits else pl.lit(None, pl.Int64)
    repeat = pl.col("label").replace_strict(dict(rule.mix.repeat) or {"": 1}, default=1, return_dtype=pl.Int32)
    enough = pl.concat_str(pl.lit("mix: "), limit.cast(pl.String), pl.lit(" "), "label", pl.lit(" rows are enough"))
    is_enough = survives & limit.is_not_null() & (survives.cum_sum().over("label") > limit)
    return judged.sort("ingest_seq").select(
        "rollout_key",
        "question_id",
        pl.col("label").alias("class"),
        "quality",
        pl.lit(1.0, pl.Float32).alias("weight"),
        repeat.alias("repeat"),
        (survives & ~is_enough).alias("selected"),
        pl.when(is_enough).then(enough).otherwise("why").alias("why_not"),
    )


def _check_contamination(chosen: pl.DataFrame, questions: pl.DataFrame, rule: SelectionRule, task: str) -> int:
    """Count selected rows that ask an evaluation question word for word; refuse them unless the recipe allows it."""
    mine = questions.filter(pl.col("task") == task)
    selected = chosen.filter("selected")
    held_out = pl.col("split").is_in(["gate", "test"])
    mine = mine.filter(held_out | pl.col("question_id").is_in(selected["question_id"].unique().implode()))
    words = [" ".join(WORD.findall(text.lower())) for text in mine["question"]]
    mine = mine.with_columns(pl.Series("words", words, dtype=pl.String))
    forbidden = {split: set(mine.filter(pl.col("split") == split)["words"]) for split in ("gate", "test")}
    asked = selected.join(mine.select("question_id", "words", "split"), on="question_id", how="left")
    in_gate = asked.filter(pl.col("words").is_in(list(forbidden["gate"])) | (pl.col("split") == "gate"))
    in_test = asked.filter(pl.col("words").is_in(list(forbidden["test"])) | (pl.col("split") == "test"))
    for split, rows, allowed in (("gate", in_gate, False), ("test", in_test, rule.allow_contaminated)):
        if rows.height and not allowed:
            raise ContaminationError(
                f"recipe {rule.recipe}: {rows.height} selected rollouts ask questions of the {split} split of {task}, "
                f"e.g. rollout {rows['rollout_key'][0][:12]} asks {rows['words'][0]!r}. Use a profile with the filter "
                f"decontaminate{', or set allow_contaminated = true' if split == 'test' else ''}"
            )
    return in_test.height
