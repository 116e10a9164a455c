"""Chooses what a recipe trains on: its profile's verdicts, its class rule, its mix; and says why not for all the rest."""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from negtraj_dagster import paths, sql
from negtraj_dagster.errors import ContaminationError, SettingsError
from negtraj_dagster.schema import digest, digest_json
from negtraj_dagster.settings import did_you_mean, read_toml
from negtraj_dagster.store import Built, Published, Store
from negtraj_dagster.trajectories.corpus import ALWAYS_DROPPING
from negtraj_dagster.trajectories.score import frame_digest

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
        return digest_json([*body, self.allow_contaminated, sorted(dropping_filters(self.profile))])


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
    asset = f"{rule.recipe}/training_selection"
    asked = questions.content["tasks"].get(task, {}).get("rows", "none")
    key = digest("selection", str(SELECTION_VERSION), corpus.version, asked, rule.slice_digest())
    return store.build(asset, key, lambda folder: _select(store, folder, corpus, questions, rule, task))


def _select(store: Store, folder: Path, corpus: Published, questions: Published, rule: SelectionRule, task: str) -> Built:
    if corpus.is_empty:
        return Built(content=corpus.content)
    store.verify(corpus.folder)
    rows = pl.read_parquet(corpus.folder / "corpus.parquet", glob=False)
    verdicts = pl.read_parquet(corpus.folder / "verdicts.parquet", glob=False)
    why = _why_dropped(rows, verdicts, rule)
    chosen = _choose(rows, why, rule)
    n_contaminated = _check_contamination(
        chosen, pl.read_parquet(questions.folder / "questions.parquet", glob=False), rule, task
    )
    chosen.write_parquet(folder / "selection.parquet")
    selected = chosen.filter("selected")
    if selected.is_empty():
        raise SettingsError(
            f"recipe {rule.recipe}: no rollout of {rows.height} is selected under profile {rule.profile!r} and classes "
            f"{rule.classes}; reasons: {dict(Counter(chosen['why_not']).most_common(5))}. Loosen the profile or the classes"
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
            "why_not": dict(Counter(reason.split(":")[0] for reason in chosen["why_not"] if reason).most_common()),
        },
        work={"rows_considered": rows.height},
    )


def _why_dropped(rows: pl.DataFrame, verdicts: pl.DataFrame, rule: SelectionRule) -> dict[str, str]:
    """rollout_key -> the first reason it is dropped. A duplicate is dropped only while an earlier twin can be trained."""
    dropping = dropping_filters(rule.profile)
    hits = verdicts.filter((pl.col("severity") == "drop") & pl.col("filter").is_in(list(dropping)))
    why = {
        key: f"filter {name}"
        for key, name in hits.filter(pl.col("earlier_key").is_null()).select("rollout_key", "filter").rows()
    }
    for row in rows.iter_rows(named=True):
        if row["rollout_key"] not in why and (reason := _class_reason(row, rule)):
            why[row["rollout_key"]] = reason
    twins: dict[str, list[tuple[str, str]]] = {}
    for key, name, earlier in hits.drop_nulls("earlier_key").select("rollout_key", "filter", "earlier_key").rows():
        twins.setdefault(key, []).append((name, earlier))
    for key in rows.sort("ingest_seq")["rollout_key"]:
        if key in why:
            continue
        for name, earlier in sorted(twins.get(key, ())):
            if earlier not in why:
                why[key] = f"filter {name}: of {earlier[:12]}"
                break
    return why


def _choose(rows: pl.DataFrame, why: Mapping[str, str], rule: SelectionRule) -> pl.DataFrame:
    taken: Counter[str] = Counter()
    made: list[dict[str, Any]] = []
    for row in rows.sort("ingest_seq").iter_rows(named=True):
        limit = rule.mix.max_per_class.get(row["label"])
        is_enough = limit is not None and taken[row["label"]] >= limit
        reason = why.get(row["rollout_key"], "") or (f"mix: {limit} {row['label']} rows are enough" if is_enough else "")
        if not reason:
            taken[row["label"]] += 1
        made.append(
            {
                "rollout_key": row["rollout_key"],
                "question_id": row["question_id"],
                "class": row["label"],
                "quality": row["quality"],
                "weight": 1.0,
                "repeat": rule.mix.repeat.get(row["label"], 1),
                "selected": not reason,
                "why_not": reason,
            }
        )
    schema = {"weight": pl.Float32, "repeat": pl.Int32, "quality": pl.Float64, "selected": pl.Boolean}
    return pl.DataFrame(made, schema_overrides=schema)


def _class_reason(row: Mapping[str, Any], rule: SelectionRule) -> str:
    label = row["label"]
    if label not in rule.classes:
        return f"class {label}: not trained by this strategy"
    return f"quality below {rule.min_quality}" if row["quality"] < rule.min_quality else ""


def _check_contamination(chosen: pl.DataFrame, questions: pl.DataFrame, rule: SelectionRule, task: str) -> int:
    """Count selected rows that ask an evaluation question word for word; refuse them unless the recipe allows it."""
    mine = questions.filter(pl.col("task") == task)
    words = [" ".join(WORD.findall(text.lower())) for text in mine["question"]]
    mine = mine.with_columns(pl.Series("words", words, dtype=pl.String))
    forbidden = {split: set(mine.filter(pl.col("split") == split)["words"]) for split in ("gate", "test")}
    asked = chosen.filter("selected").join(mine.select("question_id", "words", "split"), on="question_id", how="left")
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
