"""Chooses what a recipe trains on: its profile's verdicts, its class rule, its mix; and says why not for all the rest."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from negtraj_dagster import sql
from negtraj_dagster.comparable import COMPARABLE_VERSION, join_words
from negtraj_dagster.errors import ContaminationError, SettingsError
from negtraj_dagster.schema import digest, digest_json
from negtraj_dagster.store import Built, Published, Store
from negtraj_dagster.tables import frame_digest
from negtraj_dagster.trajectories.judging.contract import CHOICE_COLUMNS
from negtraj_dagster.trajectories.quality import why_dropped

SELECTION_VERSION = 3
LIMIT_SCHEMA = pl.Schema({"label": pl.String, "rate": pl.Float64, "max_per_question": pl.Int64, "max_rows": pl.Int64})


@dataclass(frozen=True)
class ClassLimit:
    """How much of a class is trained: a share by draw, so many a question and in all by arrival; and how often each."""

    rate: float = 1.0
    max_per_question: int | None = None
    max_rows: int | None = None
    repeat: int = 1


@dataclass(frozen=True)
class SelectionRule:
    """A recipe's slice for this stage; `choice` is sql/selection/choice.sql with the recipe's seed.

    `shuffle_seed` deals the classes of the selected rows out anew; None leaves them with their rows.
    """

    recipe: str
    profile: sql.Profile
    choice: sql.SqlFile
    classes: tuple[str, ...]
    limits: Mapping[str, ClassLimit]
    min_quality: float
    allow_contaminated: bool
    shuffle_seed: int | None = None

    def slice_digest(self) -> str:
        """Identity of the rule, the recipe's name left out: recipes that select alike have equal content."""
        limits = sorted([label, *vars(limit).values()] for label, limit in self.limits.items())
        nearest = sorted(file.name for file in self.profile.filters if file.names_nearest_twin)
        body = [self.classes, limits, self.choice.version, self.min_quality, self.allow_contaminated]
        if self.shuffle_seed is not None:
            body.append(["shuffled", self.shuffle_seed])
        return digest_json([*body, self.profile.name, self.profile.identity(), nearest])


def select_rollouts(store: Store, corpus: Published, questions: Published, rule: SelectionRule, task: str) -> Published:
    """The recipe's training selection.

    Raises:
        ContaminationError: a selected row asks a question of a gate or test split, and the recipe does not allow it.
    """
    made_of = {
        "code": [SELECTION_VERSION, COMPARABLE_VERSION],
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
    questions_table = pl.read_parquet(store.file(questions.folder, "questions.parquet"), glob=False)
    qualities = pl.read_parquet(store.file(corpus.folder, "qualities.parquet"), glob=False)
    profile_qualities = qualities.filter(pl.col("profile") == rule.profile.name).select("rollout_key", "quality")
    rows = rows.join(profile_qualities, on="rollout_key", how="left", maintain_order="left")
    choice = _choose(_why_dropped(rows, verdicts, rule), rule)
    if rule.shuffle_seed is not None:
        choice = _shuffle_classes(choice, rule.shuffle_seed)
    contaminated = _check_contamination(choice, questions_table, rule, task)
    choice.rechunk().write_parquet(folder / "selection.parquet")
    selected = choice.filter("selected")
    if selected.is_empty():
        left_out = "; ".join(f"{name}: {reasons}" for name, reasons in _reasons_by_class(choice).items())
        raise SettingsError(
            f"recipe {rule.recipe}: no rollout of {rows.height} is selected under profile {rule.profile.name!r} and classes "
            f"{rule.classes}; left out: {left_out}. Loosen the profile or the classes"
        )
    counts = dict(selected["class"].value_counts().rows())
    return Built(
        content={
            "selection": frame_digest(selected),
            "n_selected": selected.height,
            "n_contaminated": contaminated.n_rows,
        },
        details={
            "n_by_class": {name: counts.get(name, 0) for name in rule.classes},
            "rows_per_epoch": int(selected["repeat"].sum()),
            "why_not": _count_reasons(choice),
            **({"contaminated_questions": contaminated.question_ids} if contaminated.n_rows else {}),
        },
        work={"rows_considered": rows.height},
    )


def _count_reasons(chosen: pl.DataFrame) -> dict[str, int]:
    """How many rows each reason leaves out, the particulars after its colon apart."""
    counted = Counter(dict(chosen["why_not"].value_counts().rows()))
    counts: Counter[str] = Counter()
    for reason, n in counted.items():
        counts[reason.split(":")[0]] += n
    del counts[""]
    return dict(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))


def count_reasons_by_class(store: Store, selection: Published) -> dict[str, str]:
    """By class of what is not selected: `filter no_finish 2, quality below 0.5 1`."""
    return _reasons_by_class(pl.read_parquet(store.file(selection.folder, "selection.parquet"), glob=False))


def _reasons_by_class(chosen: pl.DataFrame) -> dict[str, str]:
    left_out = chosen.filter(~pl.col("selected")).partition_by("class", as_dict=True, maintain_order=True)
    texts = {}
    for (name,), rows in left_out.items():
        counts = _count_reasons(rows)
        texts[name] = ", ".join(f"{reason} {n}" for reason, n in counts.items())
        if any(reason.endswith("evaluation_question") for reason in counts):
            texts[name] += f" ({HELD_OUT})"
    return texts


def _why_dropped(rows: pl.DataFrame, verdicts: pl.DataFrame, rule: SelectionRule) -> pl.DataFrame:
    """Rows in order of arrival with `why`: the first reason each is dropped, empty where it survives."""
    unlike = (
        pl.when(~pl.col("label").is_in(list(rule.classes)))
        .then(pl.concat_str(pl.lit("class "), "label", pl.lit(": not trained by this strategy")))
        .when(pl.col("quality") < rule.min_quality)
        .then(pl.lit(f"quality below {rule.min_quality}"))
        .otherwise(pl.lit(""))
    )
    return why_dropped(rows, verdicts, rule.profile, also=unlike)


def _choose(judged: pl.DataFrame, rule: SelectionRule) -> pl.DataFrame:
    """All rows with what is selected: of the survivors what the recipe's rates and limits leave."""
    survivors = judged.filter(pl.col("why") == "")
    limits = pl.DataFrame(
        [(label, limit.rate, limit.max_per_question, limit.max_rows) for label, limit in rule.limits.items()],
        schema=LIMIT_SCHEMA,
        orient="row",
    )
    with sql.Session() as session:
        session.load("candidates", survivors.select("rollout_key", "question_id", "label", "ingest_seq", "quality"))
        session.load("limits", limits)
        session.lock()
        choices = session.select(rule.choice, expect=CHOICE_COLUMNS)
    repeats = {label: limit.repeat for label, limit in rule.limits.items()}
    judged = judged.join(choices, on="rollout_key", how="left", maintain_order="left").sort("ingest_seq")
    untold = pl.lit("class: the selection says nothing of it")
    why = pl.when(pl.col("why") == "").then(pl.col("why_not").fill_null(untold)).otherwise("why")
    return judged.select(
        "rollout_key",
        "question_id",
        pl.col("label").alias("class"),
        "quality",
        pl.lit(1.0, pl.Float32).alias("weight"),
        pl.col("label").replace_strict(repeats or {"": 1}, default=1, return_dtype=pl.Int32).alias("repeat"),
        (why == "").alias("selected"),
        why.alias("why_not"),
    )


def _shuffle_classes(choice: pl.DataFrame, seed: int) -> pl.DataFrame:
    """The selected rows with each other's classes, as many of each as before; a class brings its number of repeats along."""
    places = choice["selected"].arg_true()
    drawn = [digest("shuffle", str(seed), key) for key in choice["rollout_key"].gather(places)]
    order = sorted(range(len(places)), key=lambda place: drawn[place])
    columns = {
        name: choice[name].clone().scatter(places, choice[name].gather(places).gather(order)) for name in ("class", "repeat")
    }
    return choice.with_columns(**columns)


HELD_OUT = "held out: by held_out of a task of recorded prompts, else by the question files"
CONTAMINATION = ("evaluation_question", "decontaminate", "quotes_evaluation")
"""Filters whose verdict says that training on the row shows the model an evaluation question."""


def count_contaminated(store: Store, selection: Published, corpus: Published, registry: sql.Registry) -> dict[str, int]:
    """How many selected rollouts each of `CONTAMINATION` hits with its header's parameters, whatever the profile says."""
    selected_rows = pl.read_parquet(store.file(selection.folder, "selection.parquet"), glob=False).filter("selected")
    verdicts = pl.read_parquet(store.file(corpus.folder, "verdicts.parquet"), glob=False)
    versions = ["1", *(file.version for file in registry.filters)]
    hits = verdicts.filter(pl.col("version").is_in(versions)).join(
        selected_rows.select("rollout_key"), on="rollout_key", how="semi"
    )
    return {name: hits.filter(pl.col("filter") == name)["rollout_key"].n_unique() for name in CONTAMINATION}


@dataclass(frozen=True)
class _Contaminated:
    """How many selected rows ask a test question word for word, and which test questions those are."""

    n_rows: int
    question_ids: list[str]


def _check_contamination(chosen: pl.DataFrame, questions: pl.DataFrame, rule: SelectionRule, task: str) -> _Contaminated:
    """Selected rows that ask an evaluation question word for word; refuse them unless the recipe allows it."""
    task_questions = questions.filter(pl.col("task") == task)
    selected = chosen.filter("selected")
    held_out = pl.col("split").is_in(["gate", "test"])
    task_questions = task_questions.filter(held_out | pl.col("question_id").is_in(selected["question_id"].unique().implode()))
    task_questions = task_questions.with_columns(join_words(task_questions["question"]).alias("words"))
    task_questions = task_questions.with_columns(words=pl.when(pl.col("words") == "").then("question").otherwise("words"))
    forbidden = {split: set(task_questions.filter(pl.col("split") == split)["words"]) for split in ("gate", "test")}
    selected_questions = selected.join(task_questions.select("question_id", "words", "split"), on="question_id", how="left")
    in_gate = selected_questions.filter(pl.col("words").is_in(list(forbidden["gate"])) | (pl.col("split") == "gate"))
    in_test = selected_questions.filter(pl.col("words").is_in(list(forbidden["test"])) | (pl.col("split") == "test"))
    for split, rows, allowed in (("gate", in_gate, False), ("test", in_test, rule.allow_contaminated)):
        if rows.height and not allowed:
            raise ContaminationError(
                f"recipe {rule.recipe}: {rows.height} selected rollouts ask questions of the {split} split of {task}, "
                f"e.g. rollout {rows['rollout_key'][0][:12]} asks {rows['words'][0]!r}. Use a profile with the filter "
                f"decontaminate{', or set allow_contaminated = true' if split == 'test' else ''}"
            )
    asked = pl.col("words").is_in(in_test["words"].implode())
    return _Contaminated(in_test.height, sorted(task_questions.filter(asked & (pl.col("split") == "test"))["question_id"]))
