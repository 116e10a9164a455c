"""Quality profiles: which filters act, how, and with which parameters. A file of sql/profiles each; a recipe names one."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field

from negtraj_dagster.errors import SettingsError, SqlContractError
from negtraj_dagster.schema import digest_json
from negtraj_dagster.settings import Strict, did_you_mean, parse, read_toml
from negtraj_dagster.sql.files import Filter, Severity
from negtraj_dagster.sql.registry import Registry

DEFAULT_FLAG_PENALTY = 0.8
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]

DEFAULT_PROFILE = "strict"
"""The quality profile of recipes, commands and pages that name none."""


class _ProfileFile(Strict):
    """A profile as it is written: filters in use (all, when `only` is absent), and what differs from their headers."""

    doc: str
    only: tuple[str, ...] | None = None
    without: tuple[str, ...] = ()
    severity: Mapping[str, Severity] = {}
    params: Mapping[str, Mapping[str, int | float | bool | str | list[str]]] = {}
    weights: Mapping[str, Weight] = {}
    flag_penalty: float = Field(DEFAULT_FLAG_PENALTY, gt=0, le=1)


@dataclass(frozen=True)
class Profile:
    """A profile with its filters as they act, in funnel order; `weights` by score name."""

    name: str
    doc: str
    path: Path
    filters: tuple[Filter, ...]
    weights: Mapping[str, float]
    flag_penalty: float

    def acting(self) -> dict[tuple[str, str], Severity]:
        """(filter, version) -> what a hit of it does under this profile."""
        return {(file.name, file.version): file.severity for file in self.filters}

    def identity(self) -> str:
        """Digest of all that the profile decides."""
        effects = sorted([name, version, severity] for (name, version), severity in self.acting().items())
        return digest_json([effects, dict(sorted(self.weights.items())), self.flag_penalty])


def profile_files(registry: Registry) -> dict[str, Path]:
    """Every profile's file by name; a user's folder adds and replaces."""
    return {path.stem: path for folder in registry.folders for path in sorted((folder / "profiles").glob("*.toml"))}


def load_profiles(registry: Registry) -> dict[str, Profile]:
    """All profiles by name.

    Raises:
        SettingsError: a profile names a filter, score or parameter that there is not, or a value of the wrong kind.
    """
    return {name: _load(name, path, registry) for name, path in sorted(profile_files(registry).items())}


def find_profile(registry: Registry, name: str) -> Profile:
    """One profile.

    Raises:
        SettingsError: there is none of this name.
    """
    files = profile_files(registry)
    if name not in files:
        raise SettingsError(f"unknown quality profile {name!r}{did_you_mean(name, files)}")
    return _load(name, files[name], registry)


def filter_variants(registry: Registry) -> list[Filter]:
    """Every (filter, parameters) pair that the headers or a profile say, once, in funnel order."""
    variants = {file.version: file for file in registry.filters}
    for profile in load_profiles(registry).values():
        for file in profile.filters:
            if file.version not in variants:
                variants[file.version] = file
    return sorted(variants.values(), key=lambda file: (file.number, file.version))


def _load(name: str, path: Path, registry: Registry) -> Profile:
    file = parse(_ProfileFile, read_toml(path), path)
    by_name = {filter_.name: filter_ for filter_ in registry.filters}
    scores = {filter_.name: filter_.header.weight for filter_ in registry.scores}
    for key, names_of_key in (
        ("only", file.only or ()),
        ("without", file.without),
        ("severity", file.severity),
        ("params", file.params),
    ):
        for filter_ in names_of_key:
            if filter_ not in by_name:
                raise SettingsError(f"{path}: {key}: unknown filter {filter_!r}{did_you_mean(filter_, by_name)}")
    for filter_ in file.weights:
        if filter_ not in scores:
            raise SettingsError(f"{path}: weights: unknown score {filter_!r}{did_you_mean(filter_, scores)}")
    acting_filters = [
        filter_
        for filter_ in registry.filters
        if (file.only is None or filter_.name in file.only) and filter_.name not in file.without
    ]
    if idle := sorted({*file.severity, *file.params} - {filter_.name for filter_ in acting_filters}):
        raise SettingsError(f"{path}: sets {idle[0]}, which the profile leaves out; take one of the two away")
    try:
        filters = tuple(_as_said(filter_, file, path) for filter_ in acting_filters)
    except SqlContractError as error:
        raise SettingsError(str(error)) from None
    return Profile(name, file.doc, path, filters, {**scores, **file.weights}, file.flag_penalty)


def _as_said(filter_: Filter, file: _ProfileFile, path: Path) -> Filter:
    changed = filter_.with_parameters(file.params.get(filter_.name, {}), path)
    assert isinstance(changed, Filter)
    return changed.with_severity(file.severity.get(filter_.name, filter_.severity))
