"""What a deployment sets: where rollouts land, which base models exist, the embedded task's size.

Read from `negtraj.toml` in NEGTRAJ_HOME (or the file NEGTRAJ_SETTINGS names) and a few environment variables.
What a single recipe sets is in `recipes.py`.
"""

import difflib
import os
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from negtraj_dagster import paths
from negtraj_dagster.errors import SettingsError


class Strict(BaseModel):
    """A settings model that refuses keys it does not know and cannot be changed after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class RolloutSource(Strict):
    """A folder outside the landing folder whose files are read in place, never written."""

    task: str
    format: str
    path: Path
    pattern: str = "**/*"


class WordtrapsSettings(Strict):
    """Size and seed of the embedded task; `enabled = false` leaves the teacher out."""

    enabled: bool = True
    seed: int = 0
    n_train_questions: int = 2050
    n_gate_questions: int = 200
    n_test_questions: int = 200


class BaseModelSource(Strict):
    """A base model in a local folder in Hugging Face layout (config.json, tokenizer.json, *.safetensors)."""

    folder: Path


class Settings(Strict):
    """Everything a deployment sets, validated."""

    home: Path
    nat_dir: Path | None = None
    wordtraps: WordtrapsSettings = WordtrapsSettings()
    sources: dict[str, RolloutSource] = {}
    base_models: dict[str, BaseModelSource] = {}
    recipe_dirs: tuple[Path, ...] = ()
    max_quarantined_share: float = 0.05
    landing_dir: Path | None = None
    store_url: str | None = None
    planned_landing: Path | None = Field(None, exclude=True)

    @property
    def landing(self) -> Path:
        """Where new rollouts are dropped: landing/<task>/<format>/**/*.json or *.jsonl."""
        return self.landing_dir or self.home / "landing"

    @property
    def landings(self) -> tuple[Path, ...]:
        """The landing folder, and where `negtraj plan` puts what a run would land itself."""
        return (self.landing, *([self.planned_landing] if self.planned_landing else []))


def load_settings() -> Settings:
    """Settings of this process, from the environment and the optional settings file.

    Raises:
        SettingsError: an unknown key (with the nearest known one) or a wrong value, with the file's name.
    """
    home = paths.home()
    file = Path(os.environ.get("NEGTRAJ_SETTINGS") or home / "negtraj.toml").expanduser()
    values = read_toml(file) if file.is_file() else {}
    if os.environ.get("NEGTRAJ_SETTINGS") and not file.is_file():
        raise SettingsError(f"NEGTRAJ_SETTINGS names {file}, which does not exist; create it or unset the variable")
    if nat_dir := os.environ.get("NEGTRAJ_NAT_DIR"):
        values["nat_dir"] = nat_dir
    if recipe_dirs := os.environ.get("NEGTRAJ_RECIPES"):
        values["recipe_dirs"] = recipe_dirs.split(os.pathsep)
    settings = parse(Settings, {**values, "home": home}, file)
    return settings.model_copy(update={"nat_dir": _existing(settings.nat_dir, "NEGTRAJ_NAT_DIR")})


def _existing(folder: Path | None, name: str) -> Path | None:
    if folder is None:
        return None
    folder = folder.expanduser().resolve()
    if not folder.is_dir():
        raise SettingsError(f"{name} = {folder}: no such folder; point it at a copy of NAT's data folder or unset it")
    return folder


def read_toml(file: Path) -> dict[str, Any]:
    """A TOML file's content.

    Raises:
        SettingsError: not TOML; names the file and the line.
    """
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{file}: not valid TOML: {error}") from error


M = TypeVar("M", bound=BaseModel)


def parse(model: type[M], values: dict[str, Any], file: Path) -> M:
    """Validate values into a model, every fault in one message.

    Raises:
        SettingsError: lists each wrong key with its place, what was found, what is expected, and the nearest known key.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        lines = [_describe(model, fault) for fault in error.errors()]
        raise SettingsError(f"{file}:\n  " + "\n  ".join(lines)) from error


def _describe(model: type[BaseModel], fault: Any) -> str:
    place = ".".join(str(part) for part in fault["loc"])
    if fault["type"] != "extra_forbidden":
        return f"{place} = {fault['input']!r}: {fault['msg']}"
    return f"unknown key {place!r}{did_you_mean(str(fault['loc'][-1]), _fields_at(model, fault['loc'][:-1]))}"


def _fields_at(model: type[BaseModel], loc: Iterable[Any]) -> list[str]:
    current: Any = model
    for part in loc:
        field = getattr(current, "model_fields", {}).get(part)
        candidates = [field.annotation, *getattr(field.annotation, "__args__", ())] if field else []
        current = next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), current)
    return list(getattr(current, "model_fields", {}))


def did_you_mean(found: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` where a known word is near, else the list of known words."""
    known = sorted(known)
    near = difflib.get_close_matches(found, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(known)}"
