"""What a deployment sets: where rollouts land, which base models exist, the embedded task's size.

Read from `negtraj.toml` in NEGTRAJ_HOME (or the file NEGTRAJ_SETTINGS names) and a few environment variables.
What a single recipe sets is in `recipes.py`.
"""

import difflib
import os
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from negtraj_dagster import paths
from negtraj_dagster.errors import SettingsError


class Strict(BaseModel):
    """A settings model that refuses keys it does not know and cannot be changed after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class RolloutSource(Strict):
    """A folder outside the landing folder, or an fsspec URL, whose files are read in place, never written.

    Attributes:
        path: the folder; or `url`, such as `s3://bucket/traces`.
        columns: by key of the format: the column, or the key, that holds it; dots lead into objects.
        outcome: a rule on a key that says success or failure, as in `score >= 0.5`.
    """

    task: str
    format: str
    path: Path | None = None
    url: str | None = None
    pattern: str = "**/*"
    columns: dict[str, str] = {}
    outcome: str | None = None

    @model_validator(mode="after")
    def _is_at_one_place(self) -> "RolloutSource":
        if (self.path is None) == (self.url is None):
            raise ValueError("either path, a folder, or url, as in s3://bucket/traces")
        return self


class WordtrapsSettings(Strict):
    """Size and seed of the embedded task; `enabled = false` leaves the teacher out.

    Settings are tuned on `practice` questions, a champion is chosen on `gate`, and `test` is read by reports alone.
    """

    enabled: bool = True
    seed: int = 0
    n_train_questions: int = 2050
    n_gate_questions: int = 500
    n_test_questions: int = 200
    n_practice_questions: int = 200


class BaseModelSource(Strict):
    """A base model in a local folder in Hugging Face layout (config.json, tokenizer.json, *.safetensors)."""

    folder: Path


class SqlSettings(Strict):
    """What one SQL file may take: seconds of wall clock, megabytes of memory."""

    deadline_s: float = Field(300.0, gt=0)
    memory_mb: int = Field(2048, ge=256)


class LabelSettings(Strict):
    """Whose word on an outcome counts: the first of these that knows."""

    scorers: tuple[Literal["recorded", "task_strict", "task_lenient"], ...] = ("recorded",)


class QuestionColumns(Strict):
    """Which columns (or keys) of a question file hold what; a question of several columns is their texts, one after another.

    Without `id` a question is named by a hash of its text. `split` may hold a split's name, `group` what must not be torn
    apart by a split (a repository, a document), `family` the kind of question, by which reports tell accuracies apart.
    """

    id: str | None = None
    question: str | tuple[str, ...] = "question"
    answer: str = "answer"
    facts: str | None = None
    split: str | None = None
    group: str | None = None
    family: str | None = None


class TaskSettings(Strict):
    """A task without code: where its questions lie, what is right, and what its agent is told.

    Attributes:
        questions: a file by split; or one file, whose rows have a split of their own or are shared out by `held_out`.
        held_out: share of the questions by split, drawn by a hash of their group; the rest is `train`.
        prefix_ids: whether ids count anew in each file: the split and a slash stand before them then (`test/12`).
        answer_after: what stands before the answer in its column (`####` in GSM8K's).
        kind: `recorded` = the questions are the prompts that rollouts bring; no question file is named then.
        min_score: the recorded score from which a rollout without a recorded reward is a success.
    """

    kind: Literal["questions", "recorded"] = "questions"
    questions: Path | dict[Literal["train", "practice", "gate", "test"], Path] | None = None
    columns: QuestionColumns = QuestionColumns()
    held_out: dict[Literal["gate", "test"], float] = {"gate": 0.05, "test": 0.1}
    prefix_ids: bool = False
    answer_after: str | None = None
    score: Literal["exact", "yes_no", "number", "choice", "f1", "recorded"] = "exact"
    instruction: str = ""
    tools: tuple[str, ...] = ()
    terminal_action: str = "finish"
    style: Literal["react", "native"] = "react"
    max_turns: int = Field(7, ge=1)
    min_chars: int = Field(1, ge=0)
    min_score: float | None = None

    @model_validator(mode="after")
    def _names_files_or_records(self) -> "TaskSettings":
        if self.kind == "recorded" and self.questions is not None:
            raise ValueError('questions are for kind = "questions"; prompts that rollouts bring need no question file')
        return self

    @field_validator("held_out")
    @classmethod
    def _leaves_questions_to_train(cls, shares: dict[str, float]) -> dict[str, float]:
        if min(shares.values(), default=0) < 0 or sum(shares.values()) >= 1:
            raise ValueError("shares from 0 that leave some of 1 to train")
        return shares


class GateSettings(Strict):
    """When a candidate takes a line's title; `reports/gate.py` says what each decides, and why it has its default."""

    margin: float = Field(0.05, ge=0, lt=1)
    confidence: float = Field(0.995, gt=0.5, lt=1)
    min_questions: int = Field(100, ge=100)
    min_accuracy: float = Field(0.05, ge=0, lt=1)
    format_errors: float = Field(0.05, ge=0, lt=1)
    tool_errors: float = Field(0.05, ge=0, lt=1)
    unfinished: float = Field(0.05, ge=0, lt=1)


class RedactionSettings(Strict):
    """Whether secrets are taken out of rollouts before they are kept; off only where it says so here."""

    enabled: bool = True


class Settings(Strict):
    """Everything a deployment sets, validated."""

    home: Path
    nat_dir: Path | None = None
    wordtraps: WordtrapsSettings = WordtrapsSettings()
    sources: dict[str, RolloutSource] = {}
    tasks: dict[str, TaskSettings] = {}
    task_modules: tuple[Path, ...] = ()
    base_models: dict[str, BaseModelSource] = {}
    recipe_dirs: tuple[Path, ...] = ()
    sql_dirs: tuple[Path, ...] = ()
    sql: SqlSettings = SqlSettings()
    labels: LabelSettings = LabelSettings()
    redaction: RedactionSettings = RedactionSettings()
    gate: GateSettings = GateSettings()
    gates: dict[str, GateSettings] = {}
    max_quarantined_share: float = 0.05
    landing_dir: Path | None = None
    store_url: str | None = None
    planned_landing: Path | None = Field(None, exclude=True)

    def gate_of(self, line: str) -> GateSettings:
        """When a candidate takes this line's title: `[gates.<line>]` as a whole, else `[gate]`."""
        return self.gates.get(line, self.gate)

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
    if "\\" in str(home.absolute()):
        raise SettingsError(
            f"NEGTRAJ_HOME = {str(home)!r}: found a backslash, which DuckDB takes for the end of a folder's name; "
            f"choose a folder without one, or rename it"
        )
    file = settings_file(home)
    values = read_toml(file) if file.is_file() else {}
    if os.environ.get("NEGTRAJ_SETTINGS") and not file.is_file():
        raise SettingsError(f"NEGTRAJ_SETTINGS names {file}, which does not exist; create it or unset the variable")
    for name in ("home", "planned_landing"):
        if name in values:
            raise SettingsError(f"{file}: {name} is no key of this file; NEGTRAJ_HOME names the home")
    if nat_dir := os.environ.get("NEGTRAJ_NAT_DIR"):
        values["nat_dir"] = nat_dir
    if recipe_dirs := os.environ.get("NEGTRAJ_RECIPES"):
        values["recipe_dirs"] = recipe_dirs.split(os.pathsep)
    if sql_dirs := os.environ.get("NEGTRAJ_SQL"):
        values["sql_dirs"] = sql_dirs.split(os.pathsep)
    settings = parse(Settings, {**values, "home": home}, file)
    settings = settings.model_copy(
        update={"tasks": _all_tasks(settings, file), "task_modules": _from(settings.task_modules, file)}
    )
    return settings.model_copy(update={"nat_dir": _existing(settings.nat_dir, "NEGTRAJ_NAT_DIR")})


def settings_file(home: Path) -> Path:
    """The deployment's settings file, whether there is one or not."""
    return Path(os.environ.get("NEGTRAJ_SETTINGS") or home / "negtraj.toml").expanduser()


def _all_tasks(settings: Settings, file: Path) -> dict[str, TaskSettings]:
    """The tasks of `negtraj.toml` and of NEGTRAJ_HOME/tasks/*.toml, with paths from the folder of the file that names them."""
    tasks = {name: _placed(task, file.parent) for name, task in settings.tasks.items()}
    for task_file in sorted((settings.home / "tasks").glob("*.toml")):
        if task_file.stem in tasks:
            raise SettingsError(f"{task_file}: [tasks.{task_file.stem}] of {file} declares the same task; keep one of them")
        tasks[task_file.stem] = _placed(parse(TaskSettings, read_toml(task_file), task_file), task_file.parent)
    return tasks


def _from(files: Iterable[Path], file: Path) -> tuple[Path, ...]:
    """Paths from the folder of the file that names them."""
    return tuple((file.parent / path.expanduser()).resolve() for path in files)


def _placed(task: TaskSettings, folder: Path) -> TaskSettings:
    paths_of = {"": task.questions} if isinstance(task.questions, Path) else task.questions
    if paths_of is None:
        return task
    absolute = {split: (folder / path.expanduser()).resolve() for split, path in paths_of.items()}
    return task.model_copy(update={"questions": absolute.get("", absolute)})


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

MAX_LISTED_WORDS = 6
"""So many known words are listed beside the nearest one: a reader takes them in at a glance."""
MAX_SHOWN_CHARS = 80
TYPE_WORDS = {str: "a text", int: "a whole number", float: "a number", bool: "true or false", Path: "a path"}


def parse(model: type[M], values: dict[str, Any], file: Path, *, words: Mapping[str, Iterable[str]] | None = None) -> M:
    """Validate values into a model, every fault in one message.

    Args:
        model: what the file describes.
        values: the file's tables and keys.
        file: named in the message.
        words: by place (`strategy.name`), what may stand there; for the message of a missing key.

    Raises:
        SettingsError: lists each wrong key with its place, what was found, what is expected, and the nearest known key.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        lines = [_describe(model, fault, words or {}) for fault in error.errors()]
    raise SettingsError(f"{file}:\n  " + "\n  ".join(lines))  # outside the handler, whose error would stand above ours


def _describe(model: type[BaseModel], fault: Any, words: Mapping[str, Iterable[str]]) -> str:
    loc = fault["loc"]
    place = ".".join(str(part) for part in loc)
    if fault["type"] == "extra_forbidden":
        return f"unknown key {place!r}{did_you_mean(str(loc[-1]), _model_at(model, loc[:-1]).model_fields)}"
    field = _model_at(model, loc[:-1]).model_fields.get(loc[-1])
    if fault["type"] == "missing":
        expected = listed(sorted(words[place])) if place in words else _expected(field.annotation if field else None)
        return f"{place} is missing ({expected})"
    value = repr(fault["input"])
    value = value if len(value) <= MAX_SHOWN_CHARS else f"{value[:MAX_SHOWN_CHARS]}…"
    if fault["type"] == "literal_error" and field and (options := _options(field.annotation)):
        return f"{place} = {value}: expected {listed(options)}{_nearest(str(fault['input']), map(str, options))}"
    if fault["type"] == "model_type":
        return f"{place} = {value}: expected {_expected(_model_at(model, loc))}"
    message = fault["msg"].removeprefix("Input should be ")
    return f"{place} = {value}: {'' if message == fault['msg'] else 'expected '}{message}"


def _model_at(model: type[BaseModel], loc: Iterable[Any]) -> type[BaseModel]:
    """The settings model that a place inside `model` lies in; keys of a free name (`sources.NAME`) stay with their table."""
    current = model
    for part in loc:
        field = current.model_fields.get(part)
        candidates = [field.annotation, *getattr(field.annotation, "__args__", ())] if field else []
        current = next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), current)
    return current


def _options(annotation: Any) -> list[Any]:
    """What a Literal allows, also inside `Literal | None`."""
    if get_origin(annotation) is Literal:
        return list(get_args(annotation))
    return [option for part in get_args(annotation) for option in _options(part)]


def _expected(annotation: Any) -> str:
    """What a key takes, in words."""
    if options := _options(annotation):
        return listed(options)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        keys = [name for name, field in annotation.model_fields.items() if field.is_required()]
        return f"a table with {listed(keys, 'and')}" if keys else "a table"
    return TYPE_WORDS.get(annotation, str(annotation))


def listed(options: Iterable[Any], word: str = "or") -> str:
    """`a`, `a or b`, `a, b or c`."""
    *first, last = [str(option) for option in options]
    return f"{', '.join(first)} {word} {last}" if first else last


def did_you_mean(found: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` where a known word is near; the known words too, where they are few or none is near."""
    known = sorted(known)
    nearest = _nearest(found, known)
    return nearest if nearest and len(known) > MAX_LISTED_WORDS else f"{nearest}; known: {', '.join(known) or 'none'}"


def _nearest(found: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(found, list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
