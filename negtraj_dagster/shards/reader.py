"""Reads a recipe's tokenized shards with numpy and pyarrow alone, as docs/shard_format.md states them.

This file imports nothing of the package: copy it to where training data is read without negtraj_dagster.

    for row in read_shards(Path("/data/negtraj"), "wordtraps_nat"):
        row.input_ids, row.loss_weights
"""

import hashlib
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.ipc
import pyarrow.parquet as pq

STORE_VERSION = 2
MANIFEST = "MANIFEST.json"
KEY = re.compile(r"[0-9a-f]{64}")
TOKEN_SEGMENT = re.compile(r"segments/tokens/[0-9a-f]{16}/[0-9a-f]{64}")
MANIFEST_FIELDS = {"asset": str, "key": str, "version": str, "content": dict, "refers": dict, "files": dict}
"""Those that are read here."""
INDEX_SCHEMA = pa.schema(
    {
        "token_key": pa.string(),
        "rollout_key": pa.string(),
        "class": pa.string(),
        "weight": pa.float32(),
        "repeat": pa.int32(),
        "n_tokens": pa.int32(),
        "n_trained": pa.int32(),
    }
)
ROWS_SCHEMA = pa.schema(
    {
        "token_key": pa.string(),
        "input_ids": pa.list_(pa.int32()),
        "span_start": pa.list_(pa.int32()),
        "span_end": pa.list_(pa.int32()),
        "span_weight": pa.list_(pa.float32()),
    }
)


class ShardFormatError(Exception):
    """A file is missing, altered or of another format version; names it and what was expected."""


@dataclass(frozen=True)
class ShardRow:
    """One training row.

    Attributes:
        input_ids: int32 [n_tokens].
        loss_weights: float32 [n_tokens]; 0 where a token carries no loss. Token 0 never does: nothing stands before it.
        repeat: how often the row stands in one epoch.
    """

    token_key: str
    rollout_key: str
    class_name: str
    repeat: int
    input_ids: npt.NDArray[np.int32]
    loss_weights: npt.NDArray[np.float32]


def read_shards(home: Path, recipe: str) -> Iterator[ShardRow]:
    """The rows of a recipe's present shards in the order of the index, everything verified before the first is given.

    Args:
        home: NEGTRAJ_HOME, or the folder of a store that machines share.
        recipe: its name.

    Raises:
        ShardFormatError: nothing was published, or something is missing or altered.
    """
    asset = f"{recipe}/tokenized_shards"
    folder, manifest = _current(_pointer_place(home, asset), home / "objects", asset)
    if manifest["content"].get("status") == "no_data":
        return
    path = _verified(folder, manifest, "index.parquet")
    index = _table(path, pq.read_table, INDEX_SCHEMA).to_pylist()
    token_keys = {entry["token_key"] for entry in index}
    stored: dict[str, Mapping[str, Any]] = {}
    for name, sha256 in sorted(manifest["refers"].items()):
        for row in _segment(home, name, sha256, token_keys):
            stored.setdefault(row["token_key"], row)
    if missing := sorted(token_keys - stored.keys()):
        raise ShardFormatError(f"{path}: {len(missing)} token keys are in no segment, e.g. {missing[0]}")
    for entry in index:
        _check_entry(entry, stored[entry["token_key"]], path)
    for entry in index:
        yield _row(entry, stored[entry["token_key"]])


def _pointer_place(home: Path, asset: str) -> Path:
    """A home's pointer, or in a shared store's folder the last of its numbered versions."""
    versions = home / "versions" / "current" / f"{asset}.json"
    numbers = sorted(path.name for path in versions.glob("*") if path.name.isdigit())
    return versions / numbers[-1] if numbers else home / "current" / f"{asset}.json"


def _current(place: Path, objects: Path, asset: str) -> tuple[Path, dict[str, Any]]:
    pointer = _json(place)
    key = str(pointer.get("key"))
    if pointer.get("asset") != asset or not KEY.fullmatch(key):
        raise ShardFormatError(f"{place}: points to {pointer.get('asset')} {key}, expected {asset} and a key of 64 hex digits")
    folder = objects / asset / key
    manifest = _manifest(folder, asset, key)
    if manifest["version"] != pointer.get("version"):
        raise ShardFormatError(f"{place}: says version {pointer.get('version')}, {folder} has {manifest['version']}")
    return folder, manifest


def _segment(home: Path, name: str, sha256: str, wanted: set[str]) -> list[dict[str, Any]]:
    """The wanted rows of a segment, all of them checked; each says which file it is from."""
    folder = home / name
    path = folder / MANIFEST
    if not TOKEN_SEGMENT.fullmatch(name):
        raise ShardFormatError(f"{path}: the shards refer to it, expected segments/tokens/<rule>/<key> alone")
    if not path.is_file() or _sha256(path) != sha256:
        raise ShardFormatError(f"{path}: missing, or not the manifest that the shards were made with")
    table, key = name.rsplit("/", 1)
    path = _verified(folder, _manifest(folder, table, key), "rows.arrow")
    rows = _table(path, lambda path: pa.ipc.open_file(pa.memory_map(str(path))).read_all(), ROWS_SCHEMA)
    rows = rows.filter(pc.is_in(rows["token_key"], value_set=pa.array(sorted(wanted), pa.string())))
    segment_rows = [{**row, "path": path} for row in rows.to_pylist()]
    for row in segment_rows:
        _check_row(row)
    return segment_rows


def _check_row(row: Mapping[str, Any]) -> None:
    starts, ends, weights = row["span_start"], row["span_end"], row["span_weight"]
    if not len(starts) == len(ends) == len(weights):
        raise ShardFormatError(
            f"{row['path']}, token row {row['token_key']}: span_start, span_end, span_weight differ in length"
        )
    for start, end, weight in zip(starts, ends, weights, strict=True):
        if not 0 <= start <= end <= len(row["input_ids"]) or not 0 <= weight < math.inf:
            raise ShardFormatError(
                f"{row['path']}, token row {row['token_key']}: span [{start}, {end}) of weight {weight} in a row of "
                f"{len(row['input_ids'])} tokens; expected 0 <= start <= end <= n_tokens and a finite weight >= 0"
            )


def _check_entry(entry: Mapping[str, Any], stored: Mapping[str, Any], path: Path) -> None:
    counts = len(stored["input_ids"]), sum(stored["span_end"]) - sum(stored["span_start"])
    if counts != (entry["n_tokens"], entry["n_trained"]):
        raise ShardFormatError(
            f"{path}, token row {entry['token_key']}: {entry['n_tokens']} tokens, {entry['n_trained']} of them trained; "
            f"{stored['path']} has {counts[0]} and {counts[1]}"
        )
    if not 0 <= entry["weight"] < math.inf or entry["repeat"] < 0:
        raise ShardFormatError(
            f"{path}, token row {entry['token_key']}: weight {entry['weight']}, repeat {entry['repeat']}; "
            f"expected a finite weight >= 0 and a repeat >= 0"
        )


def _row(entry: Mapping[str, Any], stored: Mapping[str, Any]) -> ShardRow:
    input_ids = np.asarray(stored["input_ids"], dtype=np.int32)
    weights = np.zeros(len(input_ids), dtype=np.float32)
    for start, end, weight in zip(stored["span_start"], stored["span_end"], stored["span_weight"], strict=True):
        weights[start:end] = np.float32(weight) * np.float32(entry["weight"])
    weights[:1] = 0.0
    return ShardRow(entry["token_key"], entry["rollout_key"], entry["class"], entry["repeat"], input_ids, weights)


def _manifest(folder: Path, asset: str, key: str) -> dict[str, Any]:
    """A folder's manifest, held to be that of `asset` and `key`, and the folder to hold its files and no others."""
    path = folder / MANIFEST
    manifest = _json(path)
    if manifest.get("store_version") != STORE_VERSION:
        raise ShardFormatError(f"{path}: store version {manifest.get('store_version')!r}, this reader knows {STORE_VERSION}")
    # the seal first: no other field means anything before
    if manifest.get("seal") != _digest({name: value for name, value in manifest.items() if name != "seal"}):
        raise ShardFormatError(f"{path}: was altered, its seal does not fit its text")
    if wrong := [name for name, kind in MANIFEST_FIELDS.items() if not isinstance(manifest.get(name), kind)]:
        raise ShardFormatError(f"{path}: {', '.join(wrong)} missing or of another type")
    for name, entry in manifest["files"].items():
        if not isinstance(entry, dict) or not {"size_bytes", "sha256"} <= entry.keys():
            raise ShardFormatError(f"{path}: files has {entry!r} for {name}, expected size_bytes and sha256")
    if (manifest["asset"], manifest["key"]) != (asset, key):
        raise ShardFormatError(f"{path}: of {manifest['asset']} {manifest['key']}, expected {asset} {key}")
    if manifest["version"] != _digest(manifest["content"]):
        raise ShardFormatError(f"{path}: version {manifest['version']} is not the digest of its content")
    sizes = {file.relative_to(folder).as_posix(): file.stat().st_size for file in folder.rglob("*") if file.is_file()}
    expected = {name: entry["size_bytes"] for name, entry in manifest["files"].items()}
    for name in sorted((sizes.keys() | expected.keys()) - {MANIFEST}):
        if name not in expected:
            raise ShardFormatError(f"{folder / name}: not in the manifest")
        if sizes.get(name) != expected[name]:
            raise ShardFormatError(
                f"{folder / name}: {sizes.get(name, 'missing, no')} bytes, the manifest says {expected[name]}"
            )
    return manifest


def _verified(folder: Path, manifest: Mapping[str, Any], name: str) -> Path:
    path, expected = folder / name, manifest["files"].get(name)
    if expected is None:
        raise ShardFormatError(f"{path}: missing, the manifest does not name it")
    if _sha256(path) != expected["sha256"]:
        raise ShardFormatError(f"{path}: bytes differ from the manifest's sha256")
    return path


def _table(path: Path, read: Callable[[Path], pa.Table], schema: pa.Schema) -> pa.Table:
    """The schema's columns of a file, without nulls; other columns are passed over."""
    try:
        table = read(path).select(schema.names)
        if (stored_schema := pa.schema([(field.name, _plain(field.type)) for field in table.schema])) != schema:
            raise pa.ArrowTypeError(f"found {', '.join(f'{field.name} {field.type}' for field in stored_schema)}")
        table = table.cast(schema)
    except (OSError, KeyError, ValueError, pa.ArrowException) as error:
        expected = ", ".join(f"{field.name} {field.type}" for field in schema)
        raise ShardFormatError(f"{path}: cannot be read as columns {expected} ({error})") from error
    for name, column in zip(table.column_names, table.columns, strict=True):
        if column.null_count or (pa.types.is_list(column.type) and pc.list_flatten(column).null_count):
            raise ShardFormatError(f"{path}: nulls in column {name}, expected none")
    return table


def _plain(kind: pa.DataType) -> pa.DataType:
    """Arrow has three forms of text, and which one Parquet is read as depends on its writer."""
    return pa.string() if pa.types.is_large_string(kind) or pa.types.is_string_view(kind) else kind


def _json(path: Path) -> dict[str, Any]:
    try:
        value = dict(json.loads(path.read_text(encoding="utf-8")))
        _digest(value)  # NaN and lone surrogates are no canonical JSON
    except (OSError, ValueError, TypeError) as error:
        raise ShardFormatError(f"{path}: cannot be read as a JSON object ({error})") from error
    return value


def _digest(value: object) -> str:
    """sha256 of canonical JSON."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
