"""Token rows as people read them: their tokens decoded piece by piece, with the weight each is trained with."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from negtraj_dagster.printable import visible as visible  # rows are shown with it
from negtraj_dagster.shards.reading import TokenReader


class Stretch(TypedDict):
    """Tokens of one weight, as text; 0 is context."""

    text: str
    weight: float


@dataclass(frozen=True)
class Piece:
    """One control token, or tokens of one weight with none among them, as text; weight 0 is context."""

    text: str
    weight: float
    is_control: bool = False


@dataclass(frozen=True)
class ShownRow:
    """A training row for people.

    Attributes:
        weight: of the whole row; the pieces have their own.
        n_left_out: how many messages at its end an over-long conversation lost; `cut` says so in words.
        segment: folder of the token segment it was read from.
        template: the chat template's name.
    """

    recipe: str
    class_name: str
    rollout_key: str
    token_key: str
    weight: float
    repeat: int
    n_tokens: int
    n_trained: int
    n_left_out: int
    cut: str
    segment: Path
    template: str
    pieces: tuple[Piece, ...]


@dataclass(frozen=True)
class RejectedRow:
    """A row that is not trained, and why."""

    recipe: str
    rollout_key: str
    class_name: str
    row: int
    token_key: str
    reason: str
    detail: str


def shown_rows(
    entries: pl.DataFrame, segments: Sequence[Path], reader: TokenReader, *, recipe: str, template: str
) -> list[ShownRow]:
    """Rows of an index, with their text; `entries` also has `n_left_out` and `detail` of `KEY_SCHEMA`."""
    token_rows = read_token_rows(segments, entries["token_key"].to_list())
    same = ("rollout_key", "token_key", "weight", "repeat", "n_tokens", "n_trained", "n_left_out")
    rows_to_show = []
    for entry in entries.to_dicts():
        segment, row = token_rows[entry["token_key"]]
        fields = {name: entry[name] for name in same}
        text = tuple(pieces(row, reader))
        rows_to_show.append(
            ShownRow(recipe, entry["class"], **fields, cut=entry["detail"], segment=segment, template=template, pieces=text)
        )
    return rows_to_show


def rejected_rows(entries: pl.DataFrame, recipe: str) -> list[RejectedRow]:
    """Rows of rejected.parquet."""
    columns = ("rollout_key", "class", "row", "token_key", "reason", "detail")
    return [RejectedRow(recipe, *row) for row in entries.select(columns).rows()]


def read_token_rows(segments: Sequence[Path], token_keys: Sequence[str]) -> dict[str, tuple[Path, dict[str, Any]]]:
    """The token rows of these keys and the segments they are in, the first by name; a key that none has is left out."""
    key_set = pa.array(sorted(set(token_keys)), pa.string())
    rows_by_key: dict[str, tuple[Path, dict[str, Any]]] = {}
    for folder in segments:
        with pa.memory_map(str(folder / "rows.arrow")) as source:
            table = pa.ipc.open_file(source).read_all()
            matching = table.filter(pc.is_in(table.column("token_key"), value_set=key_set))
            rows_by_key = {row["token_key"]: (folder, row) for row in matching.to_pylist()} | rows_by_key
    return rows_by_key


def pieces(row: Mapping[str, Any], reader: TokenReader) -> list[Piece]:
    """A token row as text, cut where the weight changes and around control tokens."""
    ids: list[int] = row["input_ids"]
    weights = [0.0] * len(ids)
    for start, end, weight in zip(row["span_start"], row["span_end"], row["span_weight"], strict=True):
        weights[start:end] = [float(weight)] * (end - start)
    row_pieces: list[Piece] = []
    for (weight, is_control), group in itertools.groupby(
        zip(ids, weights, strict=True), key=lambda token: (token[1], token[0] in reader.added)
    ):
        tokens = [id_ for id_, _ in group]
        texts = [reader.added[id_] for id_ in tokens] if is_control else [reader.read(tokens)]
        row_pieces += [Piece(text, weight, is_control) for text in texts if text]
    return row_pieces


def stretches(row: Mapping[str, Any], reader: TokenReader) -> list[Stretch]:
    """A token row as text, cut where the weight changes."""
    return merged(pieces(row, reader))


def merged(row: Sequence[Piece]) -> list[Stretch]:
    """Pieces put together, control tokens with what they stand beside."""
    grouped = itertools.groupby(row, key=lambda piece: piece.weight)
    return [{"text": "".join(piece.text for piece in group), "weight": weight} for weight, group in grouped]


def marked_text(row: Sequence[Stretch]) -> str:
    """Trained stretches in ⟦ ⟧, with their weight where it is not 1."""

    def mark(stretch: Stretch) -> str:
        text, weight = stretch["text"], stretch["weight"]
        if weight == 0:
            return text
        return f"⟦{text}⟧" if weight == 1 else f"⟦{weight:g}: {text}⟧"

    return "".join(map(mark, row))
