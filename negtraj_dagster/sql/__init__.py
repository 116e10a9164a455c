"""SQL in files: one SELECT a file with a TOML header, bound parameters, and a locked process that can be stopped.

`files` reads a file, `registry` knows all of a deployment, `profiles` says which filters act, `session` runs them.
"""

from negtraj_dagster.sql.files import Filter, Score, SqlFile, load_file
from negtraj_dagster.sql.profiles import DEFAULT_PROFILE, Profile, filter_variants, find_profile, load_profiles, profile_files
from negtraj_dagster.sql.registry import MODEL_ORDER, Registry, load_registry
from negtraj_dagster.sql.session import Limits, Session

__all__ = [
    "DEFAULT_PROFILE",
    "MODEL_ORDER",
    "Filter",
    "Limits",
    "Profile",
    "Registry",
    "Score",
    "Session",
    "SqlFile",
    "filter_variants",
    "find_profile",
    "load_file",
    "load_profiles",
    "load_registry",
    "profile_files",
]
