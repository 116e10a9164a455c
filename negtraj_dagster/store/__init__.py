"""Content-addressed store: objects that are complete or absent, and per asset a pointer to its current object.

Layout under NEGTRAJ_HOME (stated in full in docs/shard_format.md):

    objects/<asset>/<key>/…            files, and MANIFEST.json written last inside a folder renamed into place
    segments/<table>/<key>/…           append-only pieces of row caches, published the same way
    current/<asset>.json               which object is the asset's present state, and which were before

An object's `key` is computed from what it is made of, so work is skipped by asking whether the key exists. Its
`version` is computed from what it holds (`content`): two objects made differently with equal content have one version.
"""

from negtraj_dagster.store.core import Published, Store
from negtraj_dagster.store.faults import address_space_mb, machine_fault, memory_cause, writing
from negtraj_dagster.store.files import (
    file_lock,
    file_sha256,
    make_folder,
    read_json_lines,
    replace_text,
    sync_folder,
    write_text_durably,
)
from negtraj_dagster.store.folders import set_aside
from negtraj_dagster.store.manifest import (
    MANIFEST,
    REMEDY,
    STORE_VERSION,
    Built,
    find_faults,
    load_manifest,
    object_key,
    write_manifest,
)

__all__ = [
    "MANIFEST",
    "REMEDY",
    "STORE_VERSION",
    "Built",
    "Published",
    "Store",
    "address_space_mb",
    "file_lock",
    "file_sha256",
    "find_faults",
    "load_manifest",
    "machine_fault",
    "make_folder",
    "memory_cause",
    "object_key",
    "read_json_lines",
    "replace_text",
    "set_aside",
    "sync_folder",
    "write_manifest",
    "write_text_durably",
    "writing",
]
