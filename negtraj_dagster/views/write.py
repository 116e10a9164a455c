"""Files that people open, the quality page and the catalogue: written again only where what they show has changed."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from negtraj_dagster.schema import canonical_json, digest_json
from negtraj_dagster.store import Store

SHOWN_VERSION = 1
"""Raised where the code of the page or the catalogue writes something else from the same objects."""


def write_if_changed(store: Store, name: str, shows: Mapping[str, Any], write: Callable[[], Path]) -> Path:
    """Write a file of the home, unless the one that is there shows just this.

    Args:
        store: of the home; `shown/<name>.json` remembers what was shown.
        name: the file's path under the home.
        shows: everything the file is made of, by name. Its own place is part of it: pages and catalogue hold paths.
        write: writes the file.

    Returns:
        The file.
    """
    stamp, path = f"shown/{name}.json", store.home / name
    content_digest = canonical_json({"shows": digest_json([SHOWN_VERSION, str(path), dict(shows)]), **_stat(path)})
    if path.is_file() and store.read_text(stamp) == content_digest:
        return path
    write()
    store.write_text(stamp, canonical_json({**json.loads(content_digest), **_stat(path)}))
    return path


def _stat(path: Path) -> dict[str, int]:
    """So that a file that somebody changed or cut is written again."""
    if not path.is_file():
        return {"size_bytes": -1, "mtime_ns": -1}
    status = path.stat()
    return {"size_bytes": status.st_size, "mtime_ns": status.st_mtime_ns}
