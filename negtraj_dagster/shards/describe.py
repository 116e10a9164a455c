"""What people read of a recipe's shards: its statistics, the previews, and their page."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from negtraj_dagster.shards.page import N_DETAILS, preview_page
from negtraj_dagster.shards.preview import ShownRow, merged, rejected_rows, shown_rows
from negtraj_dagster.shards.reading import load_reader
from negtraj_dagster.shards.tokenize import TokenRule
from negtraj_dagster.store import Store

N_PREVIEWS = 3


def count_by_reason(refused: pl.DataFrame) -> dict[str, int]:
    """The most frequent reason first."""
    return dict(refused["reason"].value_counts().sort(["count", "reason"], descending=[True, False]).rows())


def encoders(store: Store, segments: Sequence[Path]) -> str:
    """Which encoders made the rows, and why not a faster one."""
    all_details = [store.details(segment) for segment in segments]
    names = {
        (segment_details.get("encoder") or "tokenizers", segment_details.get("encoder_note") or "")
        for segment_details in all_details
    }
    return "; ".join(f"{name} ({note})" if note else name for name, note in sorted(names))


def statistics(index: pl.DataFrame, rows: pl.DataFrame) -> dict[str, Any]:
    """Numbers of an index, and of the rows that were rejected or cut."""
    rejected = count_by_reason(rows.filter(pl.col("reason") != ""))
    epoch = index.select(
        tokens=(pl.col("n_tokens") * pl.col("repeat")).sum(), trained=(pl.col("n_trained") * pl.col("repeat")).sum()
    ).row(0)
    return {
        "n_rejected": sum(rejected.values()),
        "rejected": rejected,
        "n_cut": rows.filter(pl.col("n_left_out") > 0).height,
        "rows_per_epoch": int(index["repeat"].sum()),
        "tokens_per_epoch": int(epoch[0]),
        "trained_tokens_per_epoch": int(epoch[1]),
        "trained_share": round(epoch[1] / epoch[0], 4),
        "max_row_tokens": int(index["n_tokens"].max() or 0),  # type: ignore[arg-type]
        "rows_by_class": dict(index["class"].value_counts().sort("class").rows()),
    }


def proved(store: Store, segments: Sequence[Path]) -> dict[str, int]:
    """What was proved of the segments that the rows lie in, which other recipes' rows share."""
    contents = [store.content(segment) for segment in segments]
    return {
        "proved_turns": sum(content["proved_turns"] for content in contents),
        "straddling_tokens": sum(content["n_straddling"] for content in contents),
        "drifted_turns": sum(content.get("n_drifted", 0) for content in contents),
    }


def _page_counts(index: pl.DataFrame, details: Mapping[str, Any]) -> dict[str, object]:
    """The page's numbers, in words."""
    by_class = {f"rows, {name}": f"{n:,}" for name, n in details["rows_by_class"].items()}
    counts_by_name = {
        "rows per epoch": "rows_per_epoch",
        "tokens per epoch": "tokens_per_epoch",
        "longest row, tokens": "max_row_tokens",
        "rows cut as over-long": "n_cut",
        "rows rejected": "n_rejected",
        "proved turns, of all rows in the same segments": "proved_turns",
        "tokens across a target's border, in the same segments": "straddling_tokens",
        "turns that kept recorded ids unlike the tokenizer's, in the same segments": "drifted_turns",
    }
    share = {"trained share": f"{details['trained_share']:.1%}"}
    return {
        "rows": f"{index.height:,}",
        **by_class,
        **share,
        **{name: f"{details[key]:,}" for name, key in counts_by_name.items()},
    }


def write_previews(
    folder: Path,
    recipe: str,
    *,
    index: pl.DataFrame,
    rows: pl.DataFrame,
    segments: Sequence[Path],
    rule: TokenRule,
    details: Mapping[str, Any],
) -> None:
    """previews.json and preview.html: the first rows of each class, and why others were rejected."""
    previews = _first_rows(index, rows, segments, rule, recipe)
    (folder / "previews.json").write_text(json.dumps([*map(_preview, previews)], ensure_ascii=False), encoding="utf-8")
    refused = rows.filter(pl.col("reason") != "").group_by("reason", maintain_order=True).head(N_DETAILS)
    samples, counts = rejected_rows(refused, recipe), _page_counts(index, details)
    text = preview_page(recipe, previews, counts=counts, rejected=details["rejected"], samples=samples)
    (folder / "preview.html").write_text(text, encoding="utf-8")


def _first_rows(
    index: pl.DataFrame, rows: pl.DataFrame, segments: Sequence[Path], rule: TokenRule, recipe: str
) -> list[ShownRow]:
    """The first rows of each class as text, for people to look at."""
    sample = index.group_by("class", maintain_order=True).head(N_PREVIEWS)
    details = rows.select("token_key", "detail", "n_left_out").unique("token_key")
    sample = sample.join(details, on="token_key", how="left", maintain_order="left")
    return shown_rows(sample, segments, load_reader(rule.tokenizer_json), recipe=recipe, template=rule.template.name)


def _preview(row: ShownRow) -> dict[str, Any]:
    same = ("rollout_key", "token_key", "n_tokens", "n_trained", "n_left_out")
    return {"class": row.class_name, **{name: getattr(row, name) for name in same}, "stretches": merged(row.pieces)}
