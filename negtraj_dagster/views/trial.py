"""Tries a filter that lies anywhere on the present rollouts: what it would hit, and what other filters hit already.

Changes nothing: its verdicts are in no cache and no asset.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from negtraj_dagster import sql
from negtraj_dagster.conversations import iter_conversations
from negtraj_dagster.errors import SettingsError, StoreError
from negtraj_dagster.printable import line_of, text_table, visible
from negtraj_dagster.settings import did_you_mean
from negtraj_dagster.store import Store
from negtraj_dagster.trajectories.fixed_verdicts import OVERRULED
from negtraj_dagster.trajectories.judging.asking import ask_all, own_rows, row_request, row_stage, verify_all
from negtraj_dagster.trajectories.judging.contract import check_filter
from negtraj_dagster.trajectories.judging.judge import VERDICT_SCHEMA, Job, Judge, applicable, verdict_rows
from negtraj_dagster.trajectories.judging.loading import load_conversations, load_row_tables, make_model
from negtraj_dagster.trajectories.judging.units import Units
from negtraj_dagster.trajectories.labels import LABEL_SCHEMA
from negtraj_dagster.trajectories.overrides import read_decisions
from negtraj_dagster.trajectories.score import CHUNK_BYTES, Scoring, asked_rollouts
from negtraj_dagster.trajectories.set_judging import CorpusInputs, SetJudge

N_SAMPLES = 10


@dataclass(frozen=True)
class Trial:
    """What a filter would say.

    Attributes:
        classes: task, label, n_rollouts, n_applicable, n_hit, share (of the applicable).
        samples: verdicts of some rollouts, with label and source, the first hit of each; drawn by key, so the same each time.
        overlaps: filter, severity, n_both, n_only_this, n_only_other; most shared first.
        n_hit: rollouts hit.
        n_new: of those, how many no present dropping filter hits.
    """

    file: sql.Filter
    classes: tuple[dict[str, Any], ...]
    samples: tuple[dict[str, Any], ...]
    overlaps: tuple[dict[str, Any], ...]
    n_hit: int
    n_new: int


def try_filter(store: Store, path: Path, scoring: Scoring, *, task: str | None = None, n_samples: int = N_SAMPLES) -> Trial:
    """Run a filter file over the present rollouts, under the deadline and memory limit of the settings.

    Args:
        store: is read; what a set-level filter has searched for is kept in it.
        path: the file, anywhere, of any name.
        scoring: the deployment's SQL files, whose model the filter may read, and limits.
        task: try it on this task only.
        n_samples: rollouts to show.

    Raises:
        SettingsError: there is no such file, or no such task.
        SqlContractError: it breaks its contract, takes too long or too much memory; names file, line and remedy.
        StoreError: the present objects are not there, or not made from one another.
    """
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "no such file"
        raise SettingsError(f"{path}: {what}; name a filter file (see sql/README.md)")
    file = sql.load_file(path, "filters")
    assert isinstance(file, sql.Filter)
    if task is not None and task not in scoring.rules:
        raise SettingsError(f"no task {task!r}{did_you_mean(task, scoring.rules)}")
    check_filter(file, scoring.registry, scoring.limits)
    inputs = CorpusInputs(*(store.require(name) for name in ("raw_rollouts", "scored_trajectories", "question_sets")))
    if inputs.scored.details["raw_version"] != inputs.raw.version:
        raise StoreError("scored_trajectories was made from other rollouts than the present ones; materialize it again first")
    labelled = asked_rollouts(store, inputs.raw, inputs.questions, scoring.rules)
    labels = _read(store, inputs, "labels").select(
        *(name for name in LABEL_SCHEMA if name not in ("fact_key", "row_unit", "truth"))
    )
    labelled = labelled.join(labels, on="rollout_key", how="inner", maintain_order="left")
    if task is not None:
        labelled = labelled.filter(pl.col("task") == task)
    ask = _ask_rows if file.is_of_rows else _ask_sets
    hits = verdict_rows(file, ask(store, inputs, scoring, file, labelled), labelled)
    return _told(file, labelled, hits, _known_verdicts(store, inputs, labelled), n_samples)


def _read(store: Store, inputs: CorpusInputs, name: str) -> pl.DataFrame:
    return pl.read_parquet(store.file(inputs.scored.folder, f"{name}.parquet"), glob=False)


def _ask_rows(store: Store, inputs: CorpusInputs, scoring: Scoring, file: sql.Filter, labelled: pl.DataFrame) -> pl.DataFrame:
    """What a row filter says, some conversations at a time, and of the first ones a second time, as a run does."""
    judge, job = Judge(store), Job("verdicts", file, _units(labelled))
    judgements = read_decisions(store, labelled["rollout_key"]).judgements
    models = [scoring.registry.model(model_file.name) for model_file in scoring.registry.model_files(file)]
    tables = ["rollouts", "judgements", *(model.name for model in models)]
    is_verified = False
    with sql.Session(scoring.limits) as session:
        for texts in iter_conversations(store, inputs.raw, labelled["base_key"], max_bytes=CHUNK_BYTES):
            chunk = labelled.join(texts, on="base_key", how="inner", maintain_order="left")
            load_conversations(session, chunk, scoring.rules.values())
            make_model(session, models)
            load_row_tables(session, chunk, judgements)
            stage, requests = row_stage(session, tables, chunk.height), [row_request(job, _units(chunk).keys)]
            mark = ask_all(judge, stage, requests)
            if not is_verified:
                verify_all(judge, stage, mark, requests, own_rows)
                is_verified = True
    return _in_order(judge.answers(job))


def _ask_sets(store: Store, inputs: CorpusInputs, scoring: Scoring, file: sql.Filter, labelled: pl.DataFrame) -> pl.DataFrame:
    """What a set-level filter says, task by task, and of a few rollouts a second time, as a run does."""
    judge = Judge(store)
    job = Job("verdicts", file, _units(labelled))
    for task in labelled["task"].unique().sort():
        with sql.Session(scoring.limits) as session:
            of_task = SetJudge(store, inputs, scoring.rules[task], scoring)
            rows = of_task.compare(of_task.read_rollouts())
            of_task.ask_about(session, judge, rows, [(job, _units(rows.rollouts).keys)])
    return _in_order(judge.answers(job))


def _units(rollouts: pl.DataFrame) -> Units:
    return Units(rollouts.select("rollout_key", unit_key="rollout_key"))


def _in_order(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.select(pl.col(name).cast(VERDICT_SCHEMA[name]) for name in ("rollout_key", "step", "detail", "earlier_key"))


def _known_verdicts(store: Store, inputs: CorpusInputs, labelled: pl.DataFrame) -> pl.DataFrame:
    """What the present filters say of these rollouts: rollout_key, filter, severity."""
    frames = []
    for task in labelled["task"].unique().sort():
        corpus = store.current(f"trajectory_corpus/{task}")
        if corpus is not None and not corpus.is_empty:
            verdicts = pl.read_parquet(store.file(corpus.folder, "verdicts.parquet"), glob=False)
        else:
            verdicts = _read(store, inputs, "verdicts")
        task_keys = labelled.filter(pl.col("task") == task).select("rollout_key")
        frames.append(verdicts.join(task_keys, on="rollout_key", how="semi"))
    verdicts_of_all = pl.concat([VERDICT_SCHEMA.to_frame(), *frames])
    return verdicts_of_all.filter(pl.col("severity") != OVERRULED).select("rollout_key", "filter", "severity").unique()


def _told(file: sql.Filter, labelled: pl.DataFrame, hits: pl.DataFrame, known: pl.DataFrame, n_samples: int) -> Trial:
    hit_keys = hits.select("rollout_key").unique()
    drops = known.filter(pl.col("severity") == "drop")
    descriptions = labelled.select("rollout_key", "task", "label", "source")
    first = hits.sort("rollout_key", "step", "detail").unique("rollout_key", keep="first", maintain_order=True)
    samples = first.join(descriptions, on="rollout_key", how="left", maintain_order="left").head(n_samples)
    return Trial(
        file=file,
        classes=tuple(_classes(file, labelled, hit_keys)),
        samples=tuple(samples.iter_rows(named=True)),
        overlaps=tuple(_overlaps(hit_keys, known)),
        n_hit=hit_keys.height,
        n_new=hit_keys.join(drops, on="rollout_key", how="anti").height,
    )


def _classes(file: sql.Filter, labelled: pl.DataFrame, mine: pl.DataFrame) -> Iterator[dict[str, Any]]:
    concerned = applicable(file, labelled)
    for (task, label), rows in sorted(labelled.group_by("task", "label"), key=lambda pair: tuple(map(str, pair[0]))):
        n_applicable = rows.join(concerned, on="rollout_key", how="semi").height
        n_hit = rows.join(mine, on="rollout_key", how="semi").height
        yield {
            "task": task,
            "label": label,
            "n_rollouts": rows.height,
            "n_applicable": n_applicable,
            "n_hit": n_hit,
            "share": n_hit / n_applicable if n_applicable else 0.0,
        }


def _overlaps(mine: pl.DataFrame, known: pl.DataFrame) -> Iterator[dict[str, Any]]:
    inputs = []
    for (name,), rows in known.group_by("filter"):
        keys = rows.select("rollout_key").unique()
        n_both = keys.join(mine, on="rollout_key", how="semi").height
        severity = "drop" if "drop" in rows["severity"] else "flag"
        row = {"filter": name, "severity": severity, "n_both": n_both}
        inputs.append(row | {"n_only_this": mine.height - n_both, "n_only_other": keys.height - n_both})
    yield from sorted(inputs, key=lambda row: (-row["n_both"], str(row["filter"])))


def trial_lines(trial: Trial) -> Iterator[str]:
    """A trial as lines for a terminal."""
    header = trial.file.header
    yield visible(f"{trial.file.name}: {header.reason}".replace("\n", " "))
    yield f"scope {header.scope}, severity {header.severity}, about {header.applies_to} rollouts of style {header.style}"
    yield ""
    yield text_table([{**_shown(row), "share": f"{row['share']:.2%}"} for row in trial.classes])
    yield ""
    yield f"{trial.n_hit} rollouts hit, {trial.n_new} of them by no filter that drops"
    if trial.samples:
        yield ""
        yield "Some of them (`negtraj why` shows one)"
        names = ("rollout_key", "label", "source", "step", "detail")
        yield text_table([{**_shown(row, names), "rollout_key": row["rollout_key"][:12]} for row in trial.samples])
    if trial.overlaps:
        yield ""
        yield "Beside each present filter"
        yield text_table([_shown(row) for row in trial.overlaps])


def _shown(row: Mapping[str, Any], names: Sequence[str] = ()) -> dict[str, str]:
    return {name: line_of(row[name]) for name in names or row}
