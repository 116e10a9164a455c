"""The assets `scored_trajectories` and `trajectory_corpus/<task>`: labels, verdicts with reasons, scores, the funnel."""

import dagster as dg

from negtraj_dagster import sql
from negtraj_dagster.defs.resources import Workspace
from negtraj_dagster.defs.versions import code_version, per_row_schema, result, table
from negtraj_dagster.schema import VERDICT_COLUMNS
from negtraj_dagster.tasks import Task
from negtraj_dagster.trajectories.corpus import CORPUS_VERSION
from negtraj_dagster.trajectories.labels import SCORER_VERSION
from negtraj_dagster.trajectories.score import SCORED_VERSION


def _sql_versions(*, rows: bool) -> list[str]:
    filters = [filter_.version for filter_ in sql.load_filters() if (filter_.scope == "row") == rows]
    scores = [*sql.load_scores(), sql.load_one("model/signatures.sql")] if rows else [sql.load_one("scores/_quality.sql")]
    return [*filters, *(score.version for score in scores)]


@dg.asset(
    group_name="data",
    kinds={"duckdb", "sql"},
    tags={"stage": "trajectories"},
    deps=["raw_rollouts"],
    code_version=code_version("scored", SCORED_VERSION, SCORER_VERSION, _sql_versions(rows=True)),
)
def scored_trajectories(workspace: Workspace) -> dg.MaterializeResult:  # type: ignore[type-arg]
    """Labels, per-rollout verdicts of the SQL filters, and scores. A verdict names its reason; nothing is deleted."""
    published = workspace.lineage().scored_trajectories()
    n_judged = max((n for name, n in published.work.items() if name.startswith("judged_")), default=0)
    return result(
        published,
        {
            "dagster/row_count": published.content["n_rollouts"],
            "dagster/column_schema": per_row_schema(VERDICT_COLUMNS),
            "n_verdicts": published.details["n_verdicts"],
            "rows_judged_now": n_judged,
            "hits": table(published.details["hits"]),
        },
    )


def build_corpus_asset(task: Task) -> dg.AssetsDefinition:
    """The asset `trajectory_corpus/<task>`."""

    @dg.asset(
        key=["trajectory_corpus", task.name],
        group_name="data",
        kinds={"duckdb", "sql", "parquet"},
        tags={"stage": "trajectories"},
        deps=["raw_rollouts", "scored_trajectories", "question_sets"],
        code_version=code_version("corpus", CORPUS_VERSION, _sql_versions(rows=False)),
        description=f"Rollouts of the task `{task.name}` with questions, set-level verdicts, quality and the funnel.",
    )
    def trajectory_corpus(workspace: Workspace) -> dg.MaterializeResult:  # type: ignore[type-arg]
        published = workspace.lineage().trajectory_corpus(task.name)
        details = published.details
        if published.is_empty:
            return result(published)
        labels = details["labels"]
        return result(
            published,
            {
                "dagster/row_count": published.content["n_rollouts"],
                **{f"n_{label}": count for label, count in labels.items()},
                "mean_quality_positive": details["mean_quality_positive"] or 0.0,
                "mean_quality_negative": details["mean_quality_negative"] or 0.0,
                "funnel": table(details["funnel"]),
                "rejected_samples": dg.MetadataValue.path(str(published.folder / "rejected_samples.parquet")),
            },
        )

    return trajectory_corpus
