"""The asset `raw_rollouts`: the landing folders, by content."""

import dagster as dg

from negtraj_dagster.defs.resources import Workspace
from negtraj_dagster.defs.versions import code_version, per_row_schema, result, table
from negtraj_dagster.rollouts.collect import TEACHER_VERSION, land_teacher_rollouts
from negtraj_dagster.rollouts.formats import FORMAT_VERSIONS
from negtraj_dagster.rollouts.read import READER_VERSION, read_landed_files
from negtraj_dagster.schema import ROLLOUT_COLUMNS


@dg.asset(
    group_name="data",
    kinds={"json", "parquet"},
    tags={"stage": "rollouts"},
    code_version=code_version("raw_rollouts", READER_VERSION, FORMAT_VERSIONS, TEACHER_VERSION),
)
def raw_rollouts(context: dg.AssetExecutionContext, workspace: Workspace) -> dg.MaterializeResult:  # type: ignore[type-arg]
    """Every landed rollout as a typed row, read once per file content; what does not parse is in quarantine.jsonl.

    Drop files into `landing/<task>/<format>/` under NEGTRAJ_HOME. The embedded teacher lands its own first.
    """
    landed = land_teacher_rollouts(workspace.settings)
    published = read_landed_files(workspace.store, workspace.settings)
    details = published.details
    context.log.info(f"{published.content['n_rollouts']} rollouts from {details['n_files']} files; teacher file: {landed}")
    names = ("task", "format", "path", "n_rollouts", "n_quarantined", "size_bytes")
    reasons = [{"reason": reason, "n": n} for reason, n in details["quarantine_reasons"].items()]
    return result(
        published,
        {
            "dagster/row_count": published.content["n_rollouts"],
            "dagster/column_schema": per_row_schema(ROLLOUT_COLUMNS),
            "n_files": details["n_files"],
            "n_quarantined": details["n_quarantined"],
            "n_repeated_keys": details["n_repeated_keys"],
            "n_label_conflicts": details["n_label_conflicts"],
            "n_ignored_files": len(details["ignored"]),
            "per_task": table(details["per_task"]),
            "files": table(details["files"][:50], names),
            "quarantine_reasons": table(reasons),
            "ignored_files": table(details["ignored"][:20]),
            "quarantine": dg.MetadataValue.path(str(published.folder / "quarantine.jsonl")),
        },
    )
