"""Reads a recipe's tokenized shards with numpy and pyarrow alone, as docs/shard_format.md states them.

This file imports nothing of the package: copy it to where training data is read without negtraj_dagster.

    for row in read_shards(Path("/data/negtraj"), "wordtraps_nat"):
        row.input_ids, row.loss_weights
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq

STORE_VERSION = 2


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
        home: NEGTRAJ_HOME.
        recipe: its name.

    Raises:
        ShardFormatError: nothing was published, or something is missing or altered.
    """
    asset = f"{recipe}/tokenized_shards"
    pointer = _json(home / "current" / f"{asset}.json")
    folder = home / "objects" / asset / pointer["key"]
    manifest = _manifest(folder, asset, pointer["key"])
    if manifest["version"] != pointer["version"]:
        raise ShardFormatError(f"{folder}: version {manifest['version']}, the pointer says {pointer['version']}")
    if manifest["content"].get("status") == "no_data":
        return
    stored: dict[str, Mapping[str, Any]] = {}
    for name, sha256 in sorted(manifest["refers"].items()):
        stored.update(_segment(home, name, sha256))
    index = pq.read_table(_verified(folder, manifest, "index.parquet")).to_pylist()
    if missing := [row["token_key"] for row in index if row["token_key"] not in stored]:
        raise ShardFormatError(f"{folder}: {len(missing)} token keys are in no segment, e.g. {missing[0]}")
    for row in index:
        yield _row(row, stored[row["token_key"]])


def _segment(home: Path, name: str, sha256: str) -> dict[str, Mapping[str, Any]]:
    table, key = name.rsplit("/", 1)
    folder = home / name
    path = folder / "MANIFEST.json"
    if not path.is_file() or _sha256(path) != sha256:
        raise ShardFormatError(f"{path}: missing, or not the manifest that the shards were made with")
    rows = _verified(folder, _manifest(folder, table, key), "rows.arrow")
    with pa.memory_map(str(rows)) as source:
        return {row["token_key"]: row for row in pa.ipc.open_file(source).read_all().to_pylist()}


def _row(entry: Mapping[str, Any], stored: Mapping[str, Any]) -> ShardRow:
    input_ids = np.asarray(stored["input_ids"], dtype=np.int32)
    weights = np.zeros(len(input_ids), dtype=np.float32)
    for start, end, weight in zip(stored["span_start"], stored["span_end"], stored["span_weight"], strict=True):
        if not 0 <= start <= end <= len(input_ids) or weight < 0:
            raise ShardFormatError(f"token row {entry['token_key']}: span [{start}, {end}) of weight {weight} is out of bounds")
        weights[start:end] = np.float32(weight) * np.float32(entry["weight"])
    weights[:1] = 0.0
    if len(input_ids) != entry["n_tokens"]:
        raise ShardFormatError(f"token row {entry['token_key']}: {len(input_ids)} tokens, the index says {entry['n_tokens']}")
    return ShardRow(entry["token_key"], entry["rollout_key"], entry["class"], entry["repeat"], input_ids, weights)


def _manifest(folder: Path, asset: str, key: str) -> dict[str, Any]:
    manifest = _json(folder / "MANIFEST.json")
    if manifest.get("store_version") != STORE_VERSION:
        raise ShardFormatError(f"{folder}: store version {manifest.get('store_version')!r}, this reader knows {STORE_VERSION}")
    body = {name: value for name, value in manifest.items() if name != "seal"}
    if manifest.get("seal") != hashlib.sha256(_canonical(body)).hexdigest():
        raise ShardFormatError(f"{folder}/MANIFEST.json: was altered, its seal does not fit its text")
    if (manifest["asset"], manifest["key"]) != (asset, key):
        raise ShardFormatError(f"{folder}: holds {manifest['asset']} {manifest['key']}, expected {asset} {key}")
    return manifest


def _verified(folder: Path, manifest: Mapping[str, Any], name: str) -> Path:
    path, expected = folder / name, manifest["files"].get(name)
    if expected is None or not path.is_file():
        raise ShardFormatError(f"{path}: missing")
    if path.stat().st_size != expected["size_bytes"] or _sha256(path) != expected["sha256"]:
        raise ShardFormatError(f"{path}: bytes differ from the manifest's sha256")
    return path


def _json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise ShardFormatError(f"{path}: cannot be read as a JSON object ({error})") from error


def _canonical(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def _sha256(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
