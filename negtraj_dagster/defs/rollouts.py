"""The asset `raw_rollouts`: the landing folders, by content."""

import dagster as dg

from negtraj_dagster.conversations import INDEX_SCHEMA
from negtraj_dagster.defs.check_results import judged
from negtraj_dagster.defs.resources import Workspace
from negtraj_dagster.defs.versions import code_version, polars_schema, result, table
from negtraj_dagster.printable import visible_name
from negtraj_dagster.rollouts.collect import TEACHER_VERSION
from negtraj_dagster.rollouts.formats import FORMAT_VERSIONS
from negtraj_dagster.rollouts.landing import READER_VERSION
from negtraj_dagster.rollouts.read import INDEX_VERSION
from negtraj_dagster.rollouts.records import LAYOUT

MAX_LISTED = 50
"""Entries of the landing folder that the log names; all are in the object's details."""


@dg.asset(
    group_name="data",
    kinds={"json", "parquet"},
    tags={"stage": "rollouts"},
    code_version=code_version("raw_rollouts", READER_VERSION, INDEX_VERSION, FORMAT_VERSIONS, TEACHER_VERSION),
)
def raw_rollouts(context: dg.AssetExecutionContext, workspace: Workspace) -> dg.MaterializeResult:  # type: ignore[type-arg]
    """Every landed rollout as a typed row, read once per file content; what does not parse is in quarantine.jsonl.

    Drop files into `landing/<task>/<format>/` under NEGTRAJ_HOME. The embedded teacher lands its own first.
    """
    published = workspace.lineage().raw_rollouts()
    details = published.details
    context.log.info(f"{published.content['n_rollouts']} rollouts from {details['n_files']} files")
    bad = published.folder / "quarantine.jsonl"
    for file in details["files"]:
        if n := file["n_quarantined"]:
            name = visible_name(file["file"])
            context.log.warning(f"{n} of {n + file['n_rollouts']} records of {name} are in quarantine, see {bad}")
        if layout := [f"{file[key]} {key.replace('_', ' ')}" for key in LAYOUT if key in file]:
            context.log.info(f"{visible_name(file['file'])}: {', '.join(layout)}")
    for entry in (*details["unread"], *details["ignored"])[:MAX_LISTED]:
        context.log.warning(f"landing/{entry['path']} is passed over: {entry['reason']}")
    for source in details.get("absent", ()):
        context.log.warning(
            f"no record of the {source['format']} source of {source['task']} has {', '.join(source['absent'])}, "
            f"which [sources] names: mend columns or outcome"
        )
    if details["n_refused_by_tombstones"]:
        context.log.warning(f"{details['n_refused_by_tombstones']} rollouts are refused by tombstones.jsonl")
    names = ("file", "n_rollouts", "n_quarantined", "size_bytes", *LAYOUT)
    reasons = [{"reason": reason, "n": n} for reason, n in details["quarantine_reasons"].items()]
    return result(
        published,
        {
            "dagster/row_count": published.content["n_rollouts"],
            "dagster/column_schema": polars_schema(INDEX_SCHEMA),
            "n_files": details["n_files"],
            "n_quarantined": details["n_quarantined"],
            "n_repeated_keys": details["n_repeated_keys"],
            "n_label_conflicts": details["n_label_conflicts"],
            "n_refused_by_tombstones": details["n_refused_by_tombstones"],
            "n_unread_bytes": details["n_unread_bytes"],
            "redaction": "on" if workspace.settings.redaction.enabled else "off: secrets stay in what is kept",
            "redacted": table([{"rule": rule, "n": n} for rule, n in details.get("redacted", {}).items()]),
            "n_ignored_files": len(details["ignored"]),
            "n_unread_files": len(details["unread"]),
            "per_task": table(details["per_task"]),
            "files": table(
                [{**dict.fromkeys(LAYOUT, 0), **file, "file": visible_name(file["file"])} for file in details["files"][:50]],
                names,
            ),
            "quarantine_reasons": table(reasons),
            "ignored_files": table(details["ignored"][:20]),
            "unread_files": table(details["unread"][:20]),
            "quarantine": dg.MetadataValue.path(str(published.folder / "quarantine.jsonl")),
        },
    )


@dg.asset_check(
    asset=raw_rollouts, description="All that landed can be read: no unknown folder, no missing permission, no stray file."
)
def landing_is_read(workspace: Workspace) -> dg.AssetCheckResult:
    """Fails for what may hold rollouts and is not read; what is read goes on all the same."""
    details = workspace.store.require("raw_rollouts").details
    unread, absent = details.get("unread", []), details.get("absent", [])
    numbers = {
        "n_unread": len(unread),
        "unread": [f"{entry['path']}: {entry['reason']}" for entry in unread[:20]],
        "absent": [f"{entry['task']}/{entry['format']}: no record has {', '.join(entry['absent'])}" for entry in absent],
    }
    remedy = "do what each reason says, mend columns and outcome of a source whose names no record has, and materialize again"
    return judged(passed=not unread and not absent, remedy=remedy, numbers=numbers)
