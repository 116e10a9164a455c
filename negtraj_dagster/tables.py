"""Tables that stages keep by key: digests of rows and frames, and append-only caches that answer a key once.

Only sha256 is stored, over bytes that do not depend on how a file was written.
"""

import hashlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl

from negtraj_dagster.errors import StoreError
from negtraj_dagster.schema import digest
from negtraj_dagster.store import Built, Store, load_manifest, set_aside

LOG = logging.getLogger(__name__)
PART_ROWS = 100_000
"""Rows whose texts are Python's at a time."""
MAX_SEGMENTS = 48
"""From here on a cache's segments are merged into one: a run opens few files, however many nights went before."""


def digest_rows(frame: pl.DataFrame, *, prefix: str) -> pl.Series:
    """sha256 of every row: its values as text with their lengths before them, null unlike any text.

    Args:
        frame: columns that decide, in a fixed order; strings, integers, booleans.
        prefix: names what the digest is for.
    """
    parts = [pl.lit(f"{len(prefix)}:{prefix}")]
    for name in frame.columns:
        text = pl.col(name).cast(pl.String)
        parts.append(pl.concat_str(text.str.len_bytes().cast(pl.String), pl.lit(":"), text).fill_null("-"))
    digests = [pl.Series("digest", [], dtype=pl.String)]
    for part in frame.iter_slices(PART_ROWS):
        texts = part.select(pl.concat_str(parts)).to_series()
        digests.append(pl.Series("digest", [hashlib.sha256(text.encode()).hexdigest() for text in texts], dtype=pl.String))
    return pl.concat(digests)


def frame_digest(frame: pl.DataFrame) -> str:
    """sha256 of a table's column names, types and values, in order, whatever file it is stored in."""
    hasher = hashlib.sha256(str(frame.height).encode())
    for series in frame.rechunk().get_columns():
        hasher.update(digest(series.name, str(series.dtype)).encode())
        hasher.update(series.is_null().cast(pl.UInt8).to_numpy().tobytes())
        for raw in _column_bytes(series):
            hasher.update(len(raw).to_bytes(8, "little"))
            hasher.update(raw)
    return hasher.hexdigest()


def _column_bytes(series: pl.Series) -> list[bytes | memoryview]:
    if series.dtype == pl.String:
        array = series.fill_null("").to_arrow(compat_level=pl.CompatLevel.oldest())  # pa.large_string, whose buffers these are
        _, offsets, values = array.buffers()
        places = np.frombuffer(offsets, dtype=np.int64)[array.offset : array.offset + len(array) + 1]
        text = memoryview(values)[places[0] : places[-1]] if values is not None and len(places) else b""
        return [(places - places[:1]).tobytes(), text]
    if series.dtype.is_integer() or series.dtype == pl.Boolean:
        return [series.cast(pl.Int64).fill_null(0).to_numpy().tobytes()]
    if series.dtype.is_float():
        return [series.cast(pl.Float64).fill_null(0.0).to_numpy().tobytes()]
    raise TypeError(f"column {series.name}: no digest for {series.dtype}; expected text, integers, booleans or floats")


class RowCache:
    """An append-only table of rows by key: every key is answered once, with any number of rows, none included.

    Each segment holds `keys.parquet` (all keys it answers) and named row tables (`rows.parquet`), each with the key column.

    Args:
        store: where the segments are.
        table: the table's name; whatever changes the answers belongs into it.
        key: name of the key column.
        schema: of `rows.parquet`, the key column first.
    """

    def __init__(self, store: Store, table: str, key: str, schema: pl.Schema) -> None:
        self.store, self.table, self.key, self.schema = store, table, key, schema
        self._n_segments: int | None = None

    def segments(self) -> list[Path]:
        """Folders of the present segments, those that a merged one stands for left out."""
        folders = self.store.segments(self.table, check=("keys.parquet", "rows.parquet"))
        replaced = {name for folder in folders for name in self._content(folder).get("replaces", ())}
        return [folder for folder in folders if folder.name not in replaced]

    def missing(self, wanted: pl.DataFrame) -> pl.DataFrame:
        """The rows of `wanted` whose key the cache cannot answer; reads key files only."""
        if not wanted.height:
            return wanted
        return wanted.join(self.keys(), on=self.key, how="anti", maintain_order="left")

    def keys(self) -> pl.DataFrame:
        """All keys, one column."""
        frames = [self._keys_of(folder) for folder in self.segments()]
        return pl.concat(frames) if frames else pl.DataFrame(schema={self.key: pl.String})

    def _keys_of(self, folder: Path) -> pl.DataFrame:
        return pl.read_parquet(folder / "keys.parquet", glob=False)

    def rows(self, wanted: pl.DataFrame | None = None) -> pl.DataFrame:
        """Rows of the wanted keys (all, when None), in no particular order.

        Each stands once as long as what was missing was asked for and added by one run at a time, as in one asset's build.
        """
        rows = self.rows_of(self.segments())
        if wanted is not None:
            rows = rows.join(wanted.select(self.key).unique(), on=self.key, how="semi")
        return rows

    def rows_of(self, folders: Sequence[Path]) -> pl.DataFrame:
        """All rows of some of the segments; a column that older ones lack is null there."""
        frames = [pl.read_parquet(folder / "rows.parquet", glob=False) for folder in folders]
        return pl.concat([self.schema.to_frame(), *frames], how="diagonal").select(self.schema.names())

    def add(self, keys: pl.Series, rows: pl.DataFrame, more: Mapping[str, pl.DataFrame] | None = None) -> Path:
        """Publish one segment.

        Args:
            keys: every key it answers.
            rows: with `schema`.
            more: further tables by file name, not merged and not read here.
        """
        if more is None:
            if self._n_segments is None:  # to list all of them for each addition takes longer and longer
                self._n_segments = len(self.segments())
            if self._n_segments >= MAX_SEGMENTS:
                self._merge(self.segments())
                self._n_segments = 1
            self._n_segments += 1
        return self._publish(_sorted_keys(keys), rows, more or {}, ())

    def _merge(self, folders: Sequence[Path]) -> None:
        LOG.info("%s: merging %d segments", self.table, len(folders))
        replaced = {name for folder in folders for name in (folder.name, *self._content(folder).get("replaces", ()))}
        answered = pl.DataFrame(schema={self.key: pl.String})
        frames = []
        for folder in folders:  # what two segments answer is kept once; equal rows of one answer stay
            frames.append(self.rows_of([folder]).join(answered, on=self.key, how="anti", maintain_order="left"))
            answered = pl.concat([answered, self._keys_of(folder)])
        self._publish(_sorted_keys(answered[self.key]), pl.concat(frames), {}, replaced)

    def _publish(self, keys: pl.Series, rows: pl.DataFrame, more: Mapping[str, pl.DataFrame], replaces: Iterable[str]) -> Path:
        tables = {"keys.parquet": pl.DataFrame({self.key: keys}), "rows.parquet": rows.cast(self.schema), **more}  # type: ignore[arg-type]

        def write(folder: Path) -> Built:
            for name, frame in tables.items():
                frame.rechunk().write_parquet(folder / name)
            return Built({"n_keys": len(keys), "n_rows": rows.height, "replaces": sorted(replaces)})

        return self.store.publish_segment(self.table, digest(*keys), write)

    def _content(self, folder: Path) -> dict[str, list[str]]:
        return dict(load_manifest(folder, f"segments/{self.table}", folder.name)["content"])


def _sorted_keys(keys: pl.Series) -> pl.Series:
    return keys.unique().sort()


class VerdictCache(RowCache):
    """A `RowCache` whose keys lie in a list of their own, that all tables which answered the same keys refer to.

    Twenty files judge the same rows every night; a key of each row is by far the most of what they say.
    """

    LISTS = "asked"

    def segments(self) -> list[Path]:
        """Folders of the present segments whose list of keys is there, too."""
        folders = [folder for folder in self.store.segments(self.table, check=("rows.parquet",)) if self._has_keys(folder)]
        replaced = {name for folder in folders for name in self._content(folder).get("replaces", ())}
        return [folder for folder in folders if folder.name not in replaced]

    def lists(self) -> list[str]:
        """Names of the lists of keys; equal lists have one name."""
        return [str(self._content(folder)["keys"]) for folder in self.segments()]

    def _keys_of(self, folder: Path) -> pl.DataFrame:
        keys = self.store.folder(str(self._content(folder)["keys"]))
        return pl.read_parquet(self.store.file(keys, "keys.parquet"), glob=False).rename({"key": self.key})

    def _has_keys(self, folder: Path) -> bool:
        """Whether a segment's list of keys is there, unaltered; without it nobody knows what the segment answered."""
        try:
            self.store.file(self.store.folder(str(self._content(folder)["keys"])), "keys.parquet")
        except StoreError as error:
            LOG.warning("%s: %s; its keys are asked again", folder, error)
            self.store.segments(self.LISTS, check=("keys.parquet",))  # sets a damaged list aside, so that it can be made again
            if folder.is_relative_to(self.store.home):
                set_aside(self.store.home, self.store.name(folder))
            return False
        return True

    def _publish(self, keys: pl.Series, rows: pl.DataFrame, more: Mapping[str, pl.DataFrame], replaces: Iterable[str]) -> Path:
        name = digest("\n".join(keys))

        def write_keys(folder: Path) -> Built:
            pl.DataFrame({"key": keys}).write_parquet(folder / "keys.parquet")
            return Built({"n_keys": len(keys)})

        list_folder = self.store.publish_segment(self.LISTS, name, write_keys)

        def write(folder: Path) -> Built:
            rows.cast(self.schema).rechunk().write_parquet(folder / "rows.parquet")  # type: ignore[arg-type]
            content = {
                "n_keys": len(keys),
                "n_rows": rows.height,
                "replaces": sorted(replaces),
                "keys": self.store.name(list_folder),
            }
            return Built(content, refers=self.store.refer([list_folder]))

        return self.store.publish_segment(self.table, name, write)
