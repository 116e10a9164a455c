"""Turns a stage's published object into what Dagster shows: data version, numbers, tables, links to files.

Numbers keep their names from run to run, so the UI plots them as series. `work_…` counts what this run computed.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg
import polars as pl

from negtraj_dagster.graph import upstream_keys
from negtraj_dagster.printable import markdown_text
from negtraj_dagster.recipes import Recipe
from negtraj_dagster.schema import canonical_json, digest
from negtraj_dagster.store import Published


def result(published: Published, metadata: Mapping[str, Any] | None = None) -> dg.MaterializeResult[Any]:
    """A materialization whose data version is the object's content version, whether it was made now or reused."""
    values: dict[str, Any] = {
        "status": dg.MetadataValue.text(str(published.content.get("status", "ok"))),
        "reused": published.reused,
        "dagster/uri": str(published.folder),
        "object_key": published.key,
    }
    if published.is_empty:
        values["reason"] = str(published.content["reason"])
    if published.why:
        values["why"] = dg.MetadataValue.md(
            "made anew, since this changed:\n" + "\n".join(f"- {reason}" for reason in published.why)
        )
    values |= {f"work_{name}": count for name, count in published.work.items()}
    values |= {} if published.is_empty else dict(metadata or {})
    return dg.MaterializeResult(metadata=values, data_version=dg.DataVersion(published.version))


def upstream_asset_keys(kind: str, recipes: Sequence[Recipe] = ()) -> list[dg.AssetKey]:
    """What an asset of a kind is made of, for the recipe that it is of or all of its line."""
    return [dg.AssetKey(key.split("/")) for key in upstream_keys(kind, recipes)]


def code_version(*parts: object) -> str:
    """A short code version from the versions and settings slices an asset depends on."""
    return digest(*(part if isinstance(part, str) else canonical_json(part) for part in parts))[:16]


def table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None) -> dg.MarkdownMetadataValue:
    """Rows as a Markdown table, which the UI renders in place."""
    if not rows:
        return dg.MetadataValue.md("none")
    names = list(columns or rows[0])
    lines = ["| " + " | ".join(names) + " |", "|" + " --- |" * len(names)]
    lines += ["| " + " | ".join(_cell(row.get(name)) for name in names) + " |" for row in rows]
    return dg.MetadataValue.md("\n".join(lines))


def _cell(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else markdown_text(str(value))


def polars_schema(schema: pl.Schema) -> dg.TableSchema:
    """Column names and types of a polars schema for the UI's Columns table."""
    return per_row_schema({name: str(dtype) for name, dtype in schema.items()})


def per_row_schema(columns: Mapping[str, str]) -> dg.TableSchema:
    """Column names and types for the UI's Columns table."""
    return dg.TableSchema(columns=[dg.TableColumn(name, type_) for name, type_ in columns.items()])
