"""Finds training rows by a key's beginning and writes them as lines for a terminal. Reads only; nothing is computed anew."""

import bisect
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from negtraj_dagster.errors import SettingsError, StoreError
from negtraj_dagster.printable import visible
from negtraj_dagster.settings import did_you_mean
from negtraj_dagster.shards.preview import (
    Piece,
    RejectedRow,
    ShownRow,
    marked_text,
    merged,
    rejected_rows,
    shown_rows,
)
from negtraj_dagster.shards.reading import TokenReader, load_reader
from negtraj_dagster.shards.remedies import remedy
from negtraj_dagster.store import Store, file_sha256

MIN_KEY_CHARS = 6
MAX_KEYS = 5
"""So many rollouts or token rows are shown at once; a beginning that fits more is refused."""
HEX_DIGITS = frozenset("0123456789abcdef")


@dataclass(frozen=True)
class Shards:
    """A recipe's present shards, opened for reading.

    Attributes:
        tokenizer_json: of the tokenizer they were made with.
        template: the chat template's name.
    """

    recipe: str
    index_path: Path
    rejected_path: Path
    segments: tuple[Path, ...]
    tokenizer_json: Path
    template: str

    @property
    def reader(self) -> TokenReader:
        """The tokenizer's decoder."""
        return load_reader(self.tokenizer_json)


@dataclass(frozen=True)
class Found:
    """What a key leads to."""

    rows: tuple[ShownRow, ...]
    rejected: tuple[RejectedRow, ...]


def open_shards(store: Store, recipe: str, tokenizer_json: Path) -> Shards | None:
    """The recipe's present shards; None where it has none, or none with rows.

    Args:
        store: is read.
        recipe: its name.
        tokenizer_json: of the recipe's present base model.

    Raises:
        StoreError: they lack a file, or were made with another tokenizer.
    """
    published = store.current(f"{recipe}/tokenized_shards")
    if published is None or published.is_empty:
        return None
    details = published.details
    again = f"materialize {published.asset} again"
    if "tokenizer_sha256" not in details:
        raise StoreError(f"{published.folder}: made by an earlier version, which kept no rejected rows; {again}")
    if not tokenizer_json.is_file() or file_sha256(tokenizer_json) != details["tokenizer_sha256"]:
        raise StoreError(
            f"{tokenizer_json}: not the tokenizer that {recipe}'s present shards were made with, so they cannot be read "
            f"back; {again}"
        )
    index, rejected = (store.file(published.folder, name) for name in ("index.parquet", "rejected.parquet"))
    segments = tuple(store.folder(name) for name in details["segments"])
    return Shards(recipe, index, rejected, segments, tokenizer_json, details["template"])


def find_rows(opened: Sequence[Shards], key: str) -> Found:
    """The rows whose rollout key or token key begins so.

    Raises:
        SettingsError: the key is too short, fits nothing (names the nearest), or fits more than `MAX_KEYS` keys.
    """
    key = key.strip().lower()
    if len(key) < MIN_KEY_CHARS or not HEX_DIGITS.issuperset(key):
        raise SettingsError(
            f"{key!r} begins no key; expected at least {MIN_KEY_CHARS} of the hex digits of a rollout_key or token_key, as "
            f"previews.json, preview.html and index.parquet have them"
        )
    fits = _begins_with(key)
    entries = {shards: pl.read_parquet(shards.index_path, glob=False).filter(fits) for shards in opened}
    refused = {shards: pl.read_parquet(shards.rejected_path, glob=False).filter(fits) for shards in opened}
    keys = sorted({full_key for frame in (*entries.values(), *refused.values()) for full_key in _fitting(frame, key)})
    if len(keys) > MAX_KEYS:
        first_keys = ", ".join(full_key[: len(key) + 6] for full_key in keys[:MAX_KEYS])
        raise SettingsError(f"{key!r} begins {len(keys)} keys ({first_keys}, …); give more of its digits")
    if not keys:
        raise SettingsError(_nothing_found(opened, key))
    rows = [row for shards, frame in entries.items() for row in _rows(shards, frame)]
    return Found(tuple(rows), tuple(_rejected(refused)))


def first_rows(opened: Sequence[Shards], limit: int) -> Found:
    """The first rows of the shards, in the order of their index."""
    frames = {shards: pl.read_parquet(shards.index_path, glob=False).head(limit) for shards in opened}
    return Found(tuple(row for shards, frame in frames.items() for row in _rows(shards, frame)), ())


def find_rejected(opened: Sequence[Shards], reason: str | None = None) -> list[RejectedRow]:
    """All rejected rows, or those of one reason.

    Raises:
        SettingsError: no row was rejected for this reason; names those there are.
    """
    frames = {shards: pl.read_parquet(shards.rejected_path, glob=False) for shards in opened}
    rejected = list(_rejected(frames))
    reasons = {row.reason for row in rejected}
    if reason is not None and reason not in reasons:
        raise SettingsError(f"no row was rejected for the reason {reason!r}{did_you_mean(reason, reasons)}")
    return [row for row in rejected if reason in (None, row.reason)]


def _begins_with(key: str) -> pl.Expr:
    return pl.col("rollout_key").str.starts_with(key) | pl.col("token_key").str.starts_with(key)


def _fitting(frame: pl.DataFrame, key: str) -> list[str]:
    """The rollout keys that begin so; of rows found by their token key alone, the token keys."""
    return [pair[0] if pair[0].startswith(key) else pair[1] for pair in frame.select("rollout_key", "token_key").rows()]


def _nothing_found(opened: Sequence[Shards], key: str) -> str:
    names = ", ".join(shards.recipe for shards in opened)
    message = f"no row of {names} has a rollout_key or token_key that begins with {key!r}"
    all_keys = sorted(
        {full_key for shards in opened for path in (shards.index_path, shards.rejected_path) for full_key in _keys(path)}
    )
    place = bisect.bisect(all_keys, key)
    near = max(all_keys[max(place - 1, 0) : place + 1], key=lambda full_key: _n_shared(full_key, key), default="")
    why = "a rollout that was not selected has no row (`why_not` in training_selection's selection.parquet)"
    return f"{message}; the nearest is {near[: len(key) + 4]!r}…; {why}"


def _n_shared(one: str, other: str) -> int:
    """Characters that two texts begin with alike."""
    return next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), len(other))


def _keys(path: Path) -> Iterator[str]:
    frame = pl.read_parquet(path, columns=["rollout_key", "token_key"], glob=False)
    yield from frame["rollout_key"]
    yield from frame["token_key"]


def _rows(shards: Shards, entries: pl.DataFrame) -> list[ShownRow]:
    keys = [pl.read_parquet(folder / "keys.parquet", glob=False) for folder in shards.segments]
    key_rows = pl.concat(keys, how="diagonal").unique("token_key", keep="first", maintain_order=True)
    left_out = pl.col("n_left_out") if "n_left_out" in key_rows.columns else pl.lit(0)
    cuts = key_rows.select("token_key", "detail", n_left_out=left_out.fill_null(0))
    rows = entries.join(cuts, on="token_key", how="left", maintain_order="left")
    return shown_rows(rows, shards.segments, shards.reader, recipe=shards.recipe, template=shards.template)


def _rejected(frames: dict[Shards, pl.DataFrame]) -> Iterator[RejectedRow]:
    for shards, frame in frames.items():
        yield from rejected_rows(frame, shards.recipe)


# As lines

DIM, GREEN, YELLOW, MAGENTA, CYAN, BOLD, REVERSE, RESET = "2", "32", "33", "35", "36", "1", "7", "0"


def found_lines(found: Found, *, has_colour: bool) -> Iterator[str]:
    """Every row with its header, then the rejected ones."""
    for row in found.rows:
        yield from row_lines(row, has_colour=has_colour)
        yield ""
    for rejected_row in found.rejected:
        yield from _refused_lines(rejected_row)


def row_lines(row: ShownRow, *, has_colour: bool) -> Iterator[str]:
    """A header, and the text as the trainer reads it.

    In colour: context dim, trained stretches green, yellow below weight 1, magenta above it, control tokens reversed where
    they are trained and cyan where not. Without: trained stretches in ⟦ ⟧. A weight that is not 1 stands before its stretch.
    """
    share = f"{row.n_trained} of {row.n_tokens} tokens trained ({row.n_trained / max(row.n_tokens, 1):.1%})"
    title = f"{row.recipe}  {row.class_name}  weight {row.weight:g} x {row.repeat}  {share}"
    yield _styled(title, BOLD) if has_colour else title
    yield f"  rollout    {row.rollout_key}"
    yield f"  token row  {row.token_key}"
    yield f"  segment    {row.segment.parent.name}/{row.segment.name}"
    yield f"  template   {visible(row.template)}"
    if row.cut:
        yield f"  {visible(row.cut)}"
    yield ""
    text = "".join(_coloured(row.pieces)) if has_colour else visible(marked_text(merged(row.pieces)))
    yield from text.split("\n")


def rejected_lines(rejected: Sequence[RejectedRow], limit: int) -> Iterator[str]:
    """How many rows of each reason, then the first ones."""
    counts: dict[tuple[str, str], int] = {}
    for row in rejected:
        counts[row.recipe, row.reason] = counts.get((row.recipe, row.reason), 0) + 1
    if not counts:
        yield "no row was rejected"
    for (recipe, reason), n in sorted(counts.items(), key=lambda item: (item[0][0], -item[1], item[0][1])):
        yield f"{recipe}  {n:>7}  {reason}: {remedy(reason)}"
    for row in rejected[:limit]:
        yield ""
        yield from _refused_lines(row)
    if len(rejected) > limit:
        yield f"\n{len(rejected) - limit} more: --limit {len(rejected)} shows them, --reason one kind"


def _refused_lines(row: RejectedRow) -> Iterator[str]:
    yield f"{row.recipe}  {row.class_name}  rejected: {row.reason}"
    yield f"  rollout    {row.rollout_key}" + (f"  row {row.row}" if row.row else "")
    yield f"  token row  {row.token_key}"
    yield from (f"  {line}" for line in visible(row.detail).split("\n"))


def _coloured(row: Iterable[Piece]) -> Iterator[str]:
    before = 0.0
    for piece in row:
        if piece.weight not in (0, 1, before):
            yield _styled(f"{piece.weight:g}:", _colour(piece.weight), BOLD)
        codes = [_colour(piece.weight)]
        if piece.is_control:
            codes = [*codes, REVERSE] if piece.weight else [CYAN]
        yield "\n".join(_styled(line, *codes) for line in visible(piece.text).split("\n"))
        before = piece.weight


def _colour(weight: float) -> str:
    if weight == 0:
        return DIM
    return GREEN if weight == 1 else YELLOW if weight < 1 else MAGENTA


def _styled(text: str, *codes: str) -> str:
    return f"\x1b[{';'.join(codes)}m{text}\x1b[{RESET}m" if text else ""
