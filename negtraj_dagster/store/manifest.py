"""An object's MANIFEST.json: what it is, what it was made of, its files with sizes and hashes (docs/shard_format.md)."""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from negtraj_dagster.errors import StoreError
from negtraj_dagster.schema import canonical_json, digest, digest_json
from negtraj_dagster.store.files import file_sha256, sync_folder, write_text_durably

MANIFEST = "MANIFEST.json"
STORE_VERSION = 2
"""Rises when a manifest or the store's layout changes so that older readers would misread it."""
REMEDY = "run `negtraj verify --repair`, then materialize again"


@dataclass(frozen=True)
class Built:
    """What a stage made.

    Attributes:
        content: defines the version; no clocks, no places.
        details: describes; may hold times and speeds.
        work: counts what was computed.
        volatile: names of files that hold times or speeds: verified like all, but not equal from build to build.
        refers: other objects and segments that this one needs, as `Store.refer` gives them.
        caches: names of segments it was made with and can do without; gc keeps them as long as the object.
    """

    content: dict[str, Any]
    details: dict[str, Any] = field(default_factory=dict)
    work: dict[str, int] = field(default_factory=dict)
    volatile: tuple[str, ...] = ()
    refers: dict[str, str] = field(default_factory=dict)
    caches: tuple[str, ...] = ()


def object_key(made_of: Mapping[str, Any]) -> str:
    """The key of an object: a digest of everything it is made of."""
    return digest("object", canonical_json(made_of))


def write_manifest(folder: Path, asset: str, key: str, made_of: Mapping[str, Any], built: Built) -> None:
    """Flush a filled folder to the disk and describe it; the manifest is the last file written."""
    body = {
        "store_version": STORE_VERSION,
        "asset": asset,
        "key": key,
        "made_of": dict(made_of),
        "version": digest_json(built.content),
        "content": built.content,
        "details": built.details,
        "work": sorted(built.work),
        "refers": built.refers,
        "caches": sorted(built.caches),
        "files": _describe_files(folder, built.volatile),
    }
    write_text_durably(folder / MANIFEST, canonical_json({**body, "seal": digest_json(body)}))
    for inner in (path for path in folder.rglob("*") if path.is_dir()):
        sync_folder(inner)
    sync_folder(folder)


def _describe_files(folder: Path, volatile: Iterable[str]) -> dict[str, dict[str, Any]]:
    files: dict[str, dict[str, Any]] = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        with path.open("rb") as handle:
            os.fsync(handle.fileno())
        name = path.relative_to(folder).as_posix()
        files[name] = {"size_bytes": path.stat().st_size, "sha256": file_sha256(path)}
        if name in volatile:
            files[name]["volatile"] = True
    return files


def load_manifest(folder: Path, asset: str, key: str) -> dict[str, Any]:
    """A folder's manifest, held to be that of `asset` and `key`.

    Raises:
        StoreError: missing, not JSON, of another store version, altered, or of another asset or key.
    """
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise StoreError(f"{folder}: no {MANIFEST}; {REMEDY}") from error
    except (ValueError, OSError) as error:
        raise StoreError(f"{path}: not readable as JSON ({error}); {REMEDY}") from error
    version = manifest.get("store_version") if isinstance(manifest, dict) else None
    if version != STORE_VERSION:
        raise StoreError(f"{path}: store version {version!r}, expected {STORE_VERSION}; {REMEDY}")
    if not _is_sealed(manifest):
        raise StoreError(f"{path}: was altered, its seal does not fit its text; {REMEDY}")
    if (manifest["asset"], manifest["key"]) != (asset, key):
        raise StoreError(f"{folder}: holds {manifest['asset']} {manifest['key']}, expected {asset} {key}; {REMEDY}")
    return dict(manifest)


def _is_sealed(manifest: Mapping[str, Any]) -> bool:
    body = {name: value for name, value in manifest.items() if name != "seal"}
    try:
        return bool(manifest["seal"] == digest_json(body) and manifest["version"] == digest_json(manifest["content"]))
    except (KeyError, ValueError):  # a field is missing, or a number is none
        return False


def find_faults(folder: Path, manifest: Mapping[str, Any], *, deep: bool) -> list[str]:
    """What is wrong with an object's files: names and sizes, and where `deep` their bytes."""
    file_names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} - {MANIFEST}
    faults = [f"{name}: not in the manifest" for name in sorted(file_names - manifest["files"].keys())]
    for name, expected in sorted(manifest["files"].items()):
        if name not in file_names:
            faults.append(f"{name}: missing")
        elif fault := file_fault(folder / name, expected, deep=deep):
            faults.append(f"{name}: {fault}")
    return faults


def file_fault(path: Path, expected: Mapping[str, Any], *, deep: bool) -> str:
    """What is wrong with one file, or an empty text."""
    if not path.is_file():
        return "missing"
    if (size_bytes := path.stat().st_size) != expected["size_bytes"]:
        return f"{size_bytes} bytes, manifest says {expected['size_bytes']}"
    return "bytes differ from the manifest's sha256" if deep and file_sha256(path) != expected["sha256"] else ""
