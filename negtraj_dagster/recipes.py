"""Loads recipes: one complete typed setting per file of recipes/*.toml, from which the lineage's last four assets are made.

A file may extend another (`extends = "name"`, tables merge key by key); a name that starts with `_` is only extended,
never a recipe. Folders in NEGTRAJ_RECIPES add recipes and override shipped ones of the same name.
"""

import datetime
import re
from collections.abc import Mapping
from operator import attrgetter
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from negtraj_dagster import paths
from negtraj_dagster.chat_templates import EmptyThink
from negtraj_dagster.chat_templates.base import RESERVED
from negtraj_dagster.chat_templates.choose import AUTO, check_template_name
from negtraj_dagster.errors import SettingsError
from negtraj_dagster.schema import MissingTools, Reasoning, TokenIds, digest_json
from negtraj_dagster.settings import Settings, Strict, did_you_mean, parse, read_toml
from negtraj_dagster.sql import DEFAULT_PROFILE, load_registry, profile_files
from negtraj_dagster.strategies import STRATEGIES
from negtraj_dagster.tasks import load_tasks

NAME = re.compile(r"[a-z][a-z0-9_]*\Z")


class SelectionSettings(Strict):
    """What is trained on. Limits go by order of arrival and rates by a draw per key: new data reshuffles nothing.

    `shuffle_labels` deals the classes of what is selected out anew, by `sample_seed`: a control, whose tags say nothing.
    """

    profile: str = DEFAULT_PROFILE
    max_positives: int | None = Field(None, ge=1)
    max_negatives: int | None = Field(None, ge=1)
    repeat_positives: int = Field(1, ge=1)
    repeat_negatives: int = Field(1, ge=1)
    positive_rate: float = Field(1.0, gt=0, le=1)
    negative_rate: float = Field(1.0, gt=0, le=1)
    max_positives_per_question: int | None = Field(None, ge=1)
    max_negatives_per_question: int | None = Field(None, ge=1)
    sample_seed: int = 0
    shuffle_labels: bool = False
    min_quality: float = Field(0.0, ge=0.0, le=1.0)
    allow_contaminated: bool = False


class StrategySettings(Strict):
    """How a rollout is conditioned; `prompt_file` and `prompt_entry` read a prompt map in NAT's layout instead of ours."""

    name: str
    prompt_file: Path | None = None
    prompt_entry: str | None = None


class ShardsSettings(Strict):
    """How conversations become tokens.

    `chat_template` is `auto` (the base model's own where it has one, else `chatml`), a native template, `base_model` (the base
    model's own) or the path of a .jinja file;
    `template_settings` are further variables that a Jinja template sees, `today` ("2026-01-31") the day it may write.
    `max_unproved_share` bounds the rows that a failed proof rejected before training is blocked, `max_rejected_share` those of
    any class that were rejected for whatever reason.
    """

    chat_template: str = AUTO
    template_settings: Mapping[str, str | int | float | bool] = {}
    enable_thinking: bool | None = None
    today: str | None = None
    reasoning: Reasoning = "keep"
    empty_think: EmptyThink = "mask"
    missing_tools: MissingTools = "refuse"
    ids: TokenIds = "retokenize"
    max_unproved_share: float = Field(0.0, ge=0, le=1)
    max_rejected_share: float = Field(0.1, ge=0, le=1)
    max_tokens: int = Field(512, ge=8)
    over_length: Literal["drop", "cut_at_turn"] = "drop"

    @field_validator("template_settings")
    @classmethod
    def _no_reserved_names(cls, value: Mapping[str, Any]) -> Mapping[str, Any]:
        if reserved := sorted(value.keys() & {*RESERVED, "enable_thinking", "today"}):
            raise ValueError(f"settings that are no variables of a template's own: {', '.join(reserved)}")
        return value

    @field_validator("today")
    @classmethod
    def _a_day(cls, value: str | None) -> str | None:
        if value is not None and value != datetime.date.fromisoformat(value).isoformat():
            raise ValueError("a day such as 2026-01-31")
        return value

    @property
    def template_variables(self) -> dict[str, str | int | float | bool]:
        """What the template sees beside the base model's special tokens."""
        named_settings = {"enable_thinking": self.enable_thinking, "today": self.today}
        return {**self.template_settings, **{name: value for name, value in named_settings.items() if value is not None}}


BF16_WANTS_ZERO = (
    "fp32, for zero_stage = 0: without ZeRO DeepSpeed's bf16 optimizer takes other steps than AdamW (0.74 of the first one); "
    "zero_stage = 1 costs one rank nothing more"
)
OFFLOAD_STAGES = {"none": 0, "optimizer": 1, "all": 3}
"""The least ZeRO stage that can offload so much."""


class TrainingSettings(Strict):
    """Optimiser, schedule and DeepSpeed settings. `batch_size` counts rows per optimiser step over all ranks.

    `micro_batch_size` bounds the rows of one forward pass; any value trains the same rows with the same weights, so it
    need neither divide `batch_size` nor stay below it.
    `warm_start` names whose weights training starts from: a recipe (its own name, too) or `champion`, the line's. The very
    checkpoint is chosen when the shards, the base model or this table change, and kept until they change again.
    `lr` left out is the rule of `default_learning_rate`. `decay` says which trained weights `weight_decay` pulls to 0.
    `heldout_share` of the questions is not trained: its loss is measured every `heldout_every_steps` steps and at the end.
    `loggers` are told of every step, in `tracking/` of the home.
    `memory_check` compares what a training needs with what the machine has, before it starts.
    `packing` puts a micro-batch's rows behind one another; of a model that does not keep them apart they stay padded.
    `gradient_checkpointing` makes activations again in the backward pass; `offload` keeps the optimizer's state, or all
    (ZeRO 3), in the memory of a GPU's host.
    Every `save_every_steps` steps the state is saved (0: where a signal asks for it alone), the `keep_last` newest are kept
    until the training ends well; a training that was killed goes on from there.
    """

    steps: int = Field(ge=1)
    batch_size: int = Field(8, ge=1)
    micro_batch_size: int = Field(8, ge=1)
    lr: float | None = Field(None, gt=0)
    warmup_share: float = Field(0.05, ge=0, le=1)
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    min_lr_share: float = Field(0.05, ge=0, le=1)
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = 0.1
    decay: Literal["matrices", "all"] = "matrices"
    gradient_clipping: float = 1.0
    seed: int = 0
    zero_stage: Literal[0, 1, 2, 3] = 2
    ranks: int = Field(1, ge=1)
    dtype: Literal["fp32", "bf16"] = "fp32"
    adaptation: Literal["full", "lora"] = "full"
    lora_r: int = 8
    lora_alpha: int = 16
    packing: bool = False
    gradient_checkpointing: bool = False
    offload: Literal["none", "optimizer", "all"] = "none"
    memory_check: Literal["refuse", "warn"] = "refuse"
    heldout_share: float = Field(0.0, ge=0, lt=1)
    heldout_every_steps: int = Field(200, ge=1)
    loggers: tuple[Literal["tensorboard", "mlflow", "trackio"], ...] = ()
    threads: int = Field(1, ge=1)
    log_every_steps: int = Field(50, ge=1)
    save_every_steps: int = Field(200, ge=0)
    keep_last: int = Field(2, ge=1)
    warm_start: str | None = None

    @property
    def peak_lr(self) -> float:
        """`lr` of a loaded recipe, which has one."""
        assert self.lr is not None
        return self.lr

    @field_validator("dtype")
    @classmethod
    def _no_bf16_without_zero(cls, value: str, info: ValidationInfo) -> str:
        if value == "bf16" and info.data.get("zero_stage") == 0:
            raise ValueError(BF16_WANTS_ZERO)
        return value

    @field_validator("offload")
    @classmethod
    def _offload_has_its_stage(cls, value: str, info: ValidationInfo) -> str:
        least = OFFLOAD_STAGES[value]
        if (stage := info.data.get("zero_stage", least)) < least:
            raise ValueError(f"none, for zero_stage = {stage}: what is offloaded is what ZeRO shards; {value!r} needs {least}")
        return value


class ServerSettings(Strict):
    """An OpenAI-compatible server that has the checkpoint under the name `model`, and how patient its clients are.

    `{recipe}` and `{version}`, the first characters of the checkpoint's version, stand for themselves in the name: a server
    that has another checkpoint does not know it, and the evaluation stops. `api_key_env` names the environment variable
    that holds the key. `extra_body` are further keys of each request.
    """

    base_url: str
    model: str = "{recipe}-{version}"
    api_key_env: str | None = None
    connect_timeout_s: float = Field(10.0, gt=0)
    read_timeout_s: float = Field(600.0, gt=0)
    max_tries: int = Field(6, ge=1)
    extra_body: Mapping[str, Any] = {}

    @field_validator("model")
    @classmethod
    def _can_be_filled_in(cls, value: str) -> str:
        try:
            value.format(recipe="", version="")
        except (KeyError, IndexError, ValueError) as error:
            raise ValueError("a name in which {recipe} and {version} alone stand in braces") from error
        return value


class EvaluationSettings(Strict):
    """Which questions, and the agent's limits. `max_questions` takes the first ones of the split.

    Each question is asked `trials` times; more than once only at a `temperature` above 0, since greedy answers are all alike.
    `dtype` is what the model is computed in, whatever its weights are stored in: in bf16 an answer depends on its batch.
    `keeps_caches` computes of a turn's prompt only what was added to it: faster, for the memory of a chunk's conversations.
    `client` is who writes the turns: the checkpoint itself, in a process of our own, or the `server` that has it.
    """

    split: Literal["gate", "test"] = "test"
    max_questions: int | None = Field(None, ge=1)
    max_turns: int | None = Field(None, ge=1)
    max_new_tokens_per_turn: int = Field(64, ge=1)
    batch_size: int = Field(200, ge=1)
    threads: int = Field(1, ge=1)
    temperature: float = Field(0.0, ge=0)
    trials: int = Field(1, ge=1)
    dtype: Literal["fp32", "bf16"] = "fp32"
    keeps_caches: bool = False
    client: Literal["model", "url"] = "model"
    server: ServerSettings | None = None

    @field_validator("trials")
    @classmethod
    def _greedy_answers_are_alike(cls, value: int, info: ValidationInfo) -> int:
        if value > 1 and info.data.get("temperature", 1.0) == 0:
            raise ValueError("1, for temperature = 0: greedy answers are all alike; set a temperature, such as 0.7")
        return value

    @model_validator(mode="after")
    def _names_its_server(self) -> "EvaluationSettings":
        if (self.client == "url") != (self.server is not None):
            raise ValueError('client = "url" with a table evaluation.server, or neither')
        return self


class Recipe(Strict):
    """One arm: from a task's corpus to an evaluated checkpoint."""

    name: str
    description: str
    task: str
    line: str
    role: Literal["candidate", "control", "study"]
    base_model: str
    nightly: bool = True
    selection: SelectionSettings = SelectionSettings()
    strategy: StrategySettings
    shards: ShardsSettings = ShardsSettings()
    training: TrainingSettings
    evaluation: EvaluationSettings = EvaluationSettings()

    def slice_digest(self, *fields: str) -> str:
        """Hash of some of the recipe's tables: what goes into one asset's code version."""
        return digest_json(self.model_dump(mode="json", include=set(fields)))


def load_recipes(settings: Settings) -> dict[str, Recipe]:
    """All recipes by name, validated together.

    Raises:
        SettingsError: an unknown key or word (with the nearest known one), a wrong value, a missing parent, a cycle.
    """
    files: dict[str, Path] = {}
    own = settings.home / "recipes"
    for folder in (paths.shipped("recipes"), *([own] if own.is_dir() else []), *settings.recipe_dirs):
        if not folder.is_dir():
            raise SettingsError(f"NEGTRAJ_RECIPES names {folder}, which is no folder")
        files |= {path.stem: path for path in sorted(folder.glob("*.toml"))}
    return {name: _load(name, files, settings) for name in sorted(files) if not name.startswith("_")}


def _load(name: str, files: Mapping[str, Path], settings: Settings) -> Recipe:
    path = files[name]
    if not NAME.match(name):
        raise SettingsError(f"{path}: a recipe's name has lower-case letters, digits and _ only; rename the file")
    words: dict[str, tuple[str, list[str]]] = {
        "task": ("task", sorted(load_tasks(settings))),
        "base_model": ("base model", [*SCRATCH_NAMES, *PACKAGED_NAMES, *settings.base_models]),
        "selection.profile": ("quality profile", sorted(profile_files(load_registry(settings.sql_dirs)))),
        "strategy.name": ("strategy", sorted(STRATEGIES)),
    }
    known_words = {place: words_of_place for place, (_, words_of_place) in words.items()}
    recipe = parse(Recipe, {**_merged(name, files, ()), "name": name}, path, words=known_words)
    for place, (noun, words_of_place) in words.items():
        word = attrgetter(place)(recipe)
        if word not in words_of_place:
            raise SettingsError(f"{path}: {place} = {word!r}: unknown {noun}{did_you_mean(word, words_of_place)}")
    recipe = _with_template_path(recipe, path)
    parents = ["champion", *(name for name in files if not name.startswith("_"))]
    if (parent := recipe.training.warm_start) is not None and parent not in parents:
        raise SettingsError(f"{path}: training.warm_start = {parent!r}: unknown recipe{did_you_mean(parent, parents)}")
    if not NAME.match(recipe.line):
        raise SettingsError(f"{path}: line = {recipe.line!r}: lower-case letters, digits and _ only")
    if recipe.training.lr is None:
        lr = default_learning_rate(recipe, settings)
        recipe = recipe.model_copy(update={"training": recipe.training.model_copy(update={"lr": lr})})
    return recipe


def default_learning_rate(recipe: Recipe, settings: Settings) -> float:
    """The peak rate of a recipe that names none.

    2e-3 for the tiny models made here from random weights; for a trained model 1e-5, or 2e-4 where only LoRA adapters are
    trained: what published fine-tunings of decoders from 0.5 to 70 billion weights use.
    """
    is_scratch = recipe.base_model in SCRATCH_NAMES and recipe.base_model not in settings.base_models
    if is_scratch:
        return 2e-3
    return 2e-4 if recipe.training.adaptation == "lora" else 1e-5


def _with_template_path(recipe: Recipe, path: Path) -> Recipe:
    """The recipe with the whole path of its template file, which lies beside the recipe unless it is absolute."""
    name = recipe.shards.chat_template
    try:
        check_template_name(name)
    except SettingsError as error:
        raise SettingsError(f"{path}: {error}") from error
    if not name.endswith(".jinja"):
        return recipe
    file = path.parent / Path(name).expanduser()
    if not file.is_file():
        raise SettingsError(f"{path}: shards.chat_template = {name!r}: no such file {file}; mend the path")
    return recipe.model_copy(update={"shards": recipe.shards.model_copy(update={"chat_template": str(file.resolve())})})


SCRATCH_NAMES = ("wordtraps", "bytes")
"""Base models made here from a tiny configuration; `modeling.SCRATCH_MODELS` defines them."""
PACKAGED_NAMES = ("smollm2",)
"""Base models of packages; `packaged_models.PACKAGED_MODELS` defines them."""


def _merged(name: str, files: Mapping[str, Path], seen: tuple[str, ...]) -> dict[str, Any]:
    if name not in files:
        raise SettingsError(f"{files[seen[-1]]}: extends = {name!r}: no such recipe{did_you_mean(name, files)}")
    if name in seen:
        raise SettingsError(f"{files[name]}: extends itself: {' -> '.join((*seen, name))}")
    values = read_toml(files[name])
    parent = values.pop("extends", None)
    if parent is not None and not isinstance(parent, str):
        raise SettingsError(f"{files[name]}: extends = {parent!r}: expected one recipe's name as a text")
    return _overlay(_merged(parent, files, (*seen, name)), values) if parent else values


def _overlay(base: dict[str, Any], top: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in top.items():
        both_tables = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _overlay(merged[key], value) if both_tables else value
    return merged
