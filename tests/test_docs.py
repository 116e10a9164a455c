"""The reference pages name every key there is, with the default the code has."""

import json
from itertools import takewhile
from pathlib import Path

import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from negtraj_dagster import recipes, settings
from negtraj_dagster.rollouts.formats import FORMATS, messages, nat, negtraj, tool_calls, weights

DOCS = Path(__file__).resolve().parents[1] / "docs"
COMPUTED = {"home", "name", "planned_landing"}
"""Fields that are no keys of a file: `home` is from the environment, a recipe's `name` from its file, a plan sets its own."""


def section(page: str, title: str) -> str:
    """A page's text under a heading, up to the next one."""
    _, found, after = (DOCS / page).read_text().partition(f"# {title}\n")
    assert found, f"docs/{page} has no section {title!r}"
    return after.partition("\n#")[0]


def default_text(field: FieldInfo) -> str:
    """A default as TOML, in the page's words."""
    value = field.default
    if field.is_required():
        return "required"
    if value is None or value == ():
        return "none"
    text = {True: "true", False: "false"}.get(value) if isinstance(value, bool) else None
    quoted = f'"{value}"' if isinstance(value, str) else repr(list(value) if isinstance(value, tuple) else value)
    return f"`{text or quoted}`"


@pytest.mark.parametrize(
    ("page", "title", "model"),
    [
        ("recipes.md", "The recipe", recipes.Recipe),
        ("recipes.md", "[strategy]", recipes.StrategySettings),
        ("recipes.md", "[selection]", recipes.SelectionSettings),
        ("recipes.md", "[shards]", recipes.ShardsSettings),
        ("recipes.md", "[training]", recipes.TrainingSettings),
        ("recipes.md", "[evaluation]", recipes.EvaluationSettings),
        ("recipes.md", "[evaluation]", recipes.ServerSettings),
        ("settings.md", "negtraj.toml", settings.Settings),
        ("settings.md", "[gate]", settings.GateSettings),
        ("settings.md", "[wordtraps]", settings.WordtrapsSettings),
        ("settings.md", "[tasks.NAME]", settings.TaskSettings),
        ("settings.md", "[sources.NAME]", settings.RolloutSource),
        ("settings.md", "[base_models.NAME]", settings.BaseModelSource),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_every_key_of_a_settings_file_is_listed_with_its_default(page: str, title: str, model: type[BaseModel]) -> None:
    text = section(page, title)
    for name, field in model.model_fields.items():
        is_table = isinstance(field.default, BaseModel | dict)
        if is_table:
            assert f"`{name}`" in text or f"[{name}" in (DOCS / page).read_text()
        elif name in COMPUTED:
            assert f"`{name}`" in text
        else:
            assert f"| `{name}` | {default_text(field)} |" in text


def test_every_key_of_our_rollout_format_is_listed() -> None:
    text = section("rollout_formats.md", "`negtraj`")
    for key in (*negtraj.KEYS, *messages.MESSAGE_KEYS, *tool_calls.OUR_KEYS, *weights.RANGE_KEYS):
        assert f"| `{key}` |" in text


def test_the_example_with_tools_is_a_record_and_has_every_key_of_a_message() -> None:
    lines = section("rollout_formats.md", "`negtraj`").splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith('    {"question_id": "q2"'))
    example = takewhile(lambda line: line.startswith("    "), lines[start:])
    rollout = negtraj.read_record("t", json.loads("".join(example)))
    assert {key for turn in rollout.turns for key in turn} == messages.MESSAGE_KEYS - {"reasoning_content"}


def test_the_papers_format_is_listed_with_its_legacy_spellings() -> None:
    text = section("rollout_formats.md", "`nat`")
    for word in (
        "conversations",
        "items",
        "id",
        "info",
        "source",
        "reward",
        "pred",
        "gt",
        "from",
        "value",
        "loss",
        *nat.SPEAKERS,
    ):
        assert f"`{word}`" in text


def test_every_rollout_format_has_a_section() -> None:
    assert all(section("rollout_formats.md", f"`{name}`") for name in FORMATS)


def test_every_environment_variable_of_a_user_is_listed() -> None:
    text = section("settings.md", "Environment variables")
    for name in ("NEGTRAJ_HOME", "NEGTRAJ_SETTINGS", "NEGTRAJ_RECIPES", "NEGTRAJ_NAT_DIR", "DAGSTER_HOME"):
        assert f"| `{name}` |" in text
