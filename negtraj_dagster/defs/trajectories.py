"""The assets `scored_trajectories` and `trajectory_corpus/<task>`: labels, verdicts with reasons, scores, the funnel."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl

from negtraj_dagster import sql
from negtraj_dagster.defs.resources import Workspace
from negtraj_dagster.defs.versions import code_version, per_row_schema, result, table, upstream_asset_keys
from negtraj_dagster.schema import VERDICT_COLUMNS
from negtraj_dagster.store import Published
from negtraj_dagster.tasks import Task
from negtraj_dagster.trajectories.corpus import CORPUS_VERSION
from negtraj_dagster.trajectories.labels import LABELS_VERSION
from negtraj_dagster.trajectories.score import SCORED_VERSION, answers_digest
from negtraj_dagster.views.quality_page.samples import samples_in_markdown


def build_scored_asset(registry: sql.Registry) -> dg.AssetsDefinition:
    """The asset `scored_trajectories`."""
    models = [registry.model(name).version for name in ("outcomes", "texts", "signatures")]
    filters = [file for file in sql.filter_variants(registry) if file.is_of_rows]
    files = [*models, *(answers_digest(file) for file in (*filters, *registry.scores))]

    @dg.asset(
        group_name="data",
        kinds={"duckdb", "sql"},
        tags={"stage": "trajectories"},
        deps=upstream_asset_keys("scored_trajectories"),
        code_version=code_version("scored", SCORED_VERSION, LABELS_VERSION, files),
    )
    def scored_trajectories(workspace: Workspace) -> dg.MaterializeResult:  # type: ignore[type-arg]
        """Labels, per-rollout verdicts of the SQL filters, and scores. A verdict names its reason; nothing is deleted."""
        published = workspace.lineage().scored_trajectories()
        details = published.details
        n_judged = max((n for name, n in published.work.items() if name.startswith("judged_")), default=0)
        return result(
            published,
            {
                "dagster/row_count": published.content["n_rollouts"],
                "dagster/column_schema": per_row_schema(VERDICT_COLUMNS),
                "n_verdicts": details["n_verdicts"],
                "rows_judged_now": n_judged,
                "hits": table(details["hits"]),
                "labels": table(details["labels"]),
                "styles": table(details["styles"]),
                "n_overrides": details["n_overrides"],
                **_noted("overrides_without_rollout", details["unmatched"]),
                **_noted("replaced_sql", [" replaces ".join(pair) for pair in details["replaced_sql"]]),
            },
        )

    return scored_trajectories


def build_corpus_asset(task: Task, registry: sql.Registry) -> dg.AssetsDefinition:
    """The asset `trajectory_corpus/<task>`."""
    filters = [answers_digest(file) for file in sql.filter_variants(registry) if not file.is_of_rows]
    profiles = [profile.identity() for profile in sql.load_profiles(registry).values()]
    quality = registry.one("selection", "quality").version

    @dg.asset(
        key=["trajectory_corpus", task.name],
        group_name="data",
        kinds={"duckdb", "sql", "parquet"},
        tags={"stage": "trajectories"},
        deps=upstream_asset_keys("trajectory_corpus"),
        code_version=code_version("corpus", CORPUS_VERSION, [*filters, *profiles, quality]),
        description=f"Rollouts of the task `{task.name}` with questions, set-level verdicts, quality and the funnel.",
    )
    def trajectory_corpus(workspace: Workspace) -> dg.MaterializeResult:  # type: ignore[type-arg]
        lineage = workspace.lineage()
        published = lineage.trajectory_corpus(task.name)
        pages = lineage.show_corpus(task.name)
        return result(published, {} if published.is_empty else {**shown_files(pages), **_corpus_metadata(workspace, published)})

    return trajectory_corpus


def _corpus_metadata(workspace: Workspace, published: Published) -> dict[str, Any]:
    details = published.details
    profiles: Mapping[str, Any] = details["profiles"]
    default_numbers = profiles.get(sql.DEFAULT_PROFILE) or next(iter(profiles.values()))
    funnel: Sequence[Mapping[str, Any]] = default_numbers["funnel"]
    remaining = {f"left_{label}": funnel[-1][f"left_{label}"] for label in details["labels"]} if funnel else {}
    samples = pl.read_parquet(workspace.store.file(published.folder, "rejected_samples.parquet"), glob=False)
    return {
        "dagster/row_count": published.content["n_rollouts"],
        **{f"n_{label}": count for label, count in details["labels"].items()},
        **remaining,
        "drop_rate": default_numbers["drop_rate"],
        "answer_shortcut": details["answer_shortcut"]["difference"],
        "mean_quality_positive": default_numbers["mean_quality_positive"] or 0.0,
        "mean_quality_negative": default_numbers["mean_quality_negative"] or 0.0,
        **{f"dropped_{row['filter']}": row["n_positive"] + row["n_negative"] for row in funnel if row["severity"] == "drop"},
        **{f"funnel_{name}": table(numbers["funnel"]) for name, numbers in profiles.items()},
        **{f"per_source_{name}": table(numbers["per_source"]) for name, numbers in profiles.items()},
        "answers": table(details["answers"]),
        "gold_answers": table(details["gold_answers"]),
        "rejected_samples": dg.MetadataValue.md(samples_in_markdown(samples)),
        "rejected_samples_file": dg.MetadataValue.path(str(published.folder / "rejected_samples.parquet")),
    }


def shown_files(files: Mapping[str, Path]) -> dict[str, Any]:
    """Files that people open, by what they are."""
    return {name: dg.MetadataValue.path(str(file)) for name, file in files.items()}


def _noted(name: str, lines: Sequence[str]) -> dict[str, Any]:
    return {name: dg.MetadataValue.md("\n".join(f"- {line}" for line in lines))} if lines else {}
