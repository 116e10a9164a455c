"""Recipes choose their chat template: the base model's own, a file, a native one; with reasoning, tools and rejected rows."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest

from negtraj_dagster.agent.clients import TransformersPolicy, chat_encoder
from negtraj_dagster.chat_templates import ChatTemplate
from negtraj_dagster.chat_templates.choose import choose_template
from negtraj_dagster.errors import SettingsError, StoreError
from negtraj_dagster.lineage import Lineage
from negtraj_dagster.settings import load_settings
from negtraj_dagster.store import Published, Store
from tests.shards.test_proofs import KEEPS, PROMPTS_MORE, STRIPS
from tests.support import deployment as dep

N_ROWS = 12
TOOLS = [{"type": "function", "function": {"name": "search", "parameters": {"type": "object"}}}]


@pytest.fixture
def root(base_model: Path, tmp_path: Path) -> Path:
    """A deployment with few rollouts, half of which think and call a tool."""
    root = dep.make_deployment(tmp_path / "d", base_model)
    for path in dep.landed(root):
        path.unlink()
    rows = [thoughtful(n) if n % 2 else dep.rollout(n, n % 4 // 2) for n in range(N_ROWS)]
    dep.write_lines(root / "home/landing/strategyqa/negtraj/all.jsonl", rows)
    return root


def thoughtful(number: int) -> dict[str, Any]:
    row = dep.rollout(number, number % 4 // 2)
    first, observed, last = row["messages"]
    call = {"name": "search", "arguments": '{"q": "pebble", "n": 1.0}'}
    row["messages"] = [
        {**first, "reasoning": f"Case {number} first.", "tool_calls": [call]},
        {**observed, "role": "tool", "name": "search"},
        {"role": "assistant", "content": f"<think>\nIt is {number}.\n</think>\n\n{last['content']}"},
    ]
    return {**row, "tools": TOOLS}


def shards(root: Path, **settings: Any) -> tuple[Published, list[str]]:
    """The shards of the recipe with these settings, and the text of every row in order."""
    lines = "\n".join(f"{key} = {json.dumps(value)}" for key, value in {"chat_template": "chatml", **settings}.items())
    recipe = dep.RECIPE.format(name="tiny_nat", seed=0).replace('chat_template = "chatml"', lines)
    (root / "recipes/tiny_nat.toml").write_text(recipe)
    os.environ.update(dep.environment(root))
    loaded = load_settings()
    lineage = Lineage(Store(loaded.home), loaded, dep.counting_child)
    for asset in ("question_sets", "base_model/tiny", "raw_rollouts", "scored_trajectories", "trajectory_corpus/strategyqa"):
        lineage.build(asset)
    lineage.build("tiny_nat/training_selection")
    return (made := lineage.build("tiny_nat/tokenized_shards")), rows_of(root, made)


def rows_of(root: Path, made: Published) -> list[str]:
    stored: dict[str, list[int]] = {}
    for name in made.details["segments"]:
        rows = pa.ipc.open_file(root / "home" / name / "rows.arrow").read_all().to_pylist()
        stored |= {row["token_key"]: row["input_ids"] for row in rows}
    return [str(stored[key]) for key in pl.read_parquet(made.folder / "index.parquet")["token_key"]]


def template(root: Path, source: str) -> str:
    path = root / "own.jinja"
    path.write_text(source)
    return str(path)


def test_the_base_models_own_template_gives_the_same_rows_as_the_native_one(root: Path) -> None:
    shutil.copy(dep.landed(root)[0], root / "all.jsonl")
    plain = [row for row in dep.read_lines(root / "all.jsonl") if "tools" not in row]
    dep.write_lines(dep.landed(root)[0], plain)
    (_, native), (own, jinja) = shards(root), shards(root, chat_template="base_model")
    assert native == jinja
    assert own.details["n_rejected"] == 0


def test_left_out_it_is_the_base_models_own_where_it_has_one(root: Path, tmp_path: Path) -> None:
    own = choose_template("auto", root / "model", settings={})
    assert own == choose_template("base_model", root / "model", settings={})
    without = tmp_path / "without"
    without.mkdir()
    assert choose_template("auto", without, settings={}) == choose_template("chatml", without, settings={})


def test_what_a_native_template_does_not_write_is_rejected_by_name(root: Path) -> None:
    made, rows = shards(root)
    assert (len(rows), made.details["rejected"]) == (N_ROWS // 2, {"not_rendered": N_ROWS // 2})
    rejected = pl.read_parquet(made.folder / "rejected.parquet")
    assert rejected["detail"].unique().to_list() == [
        "template chatml writes no tools; take a template that does, such as the model's own"
    ]


def test_reasoning_that_a_template_strips_costs_its_rows_until_each_turn_has_its_own(root: Path) -> None:
    path = template(root, STRIPS)
    whole, rows = shards(root, chat_template=path)
    assert whole.details["rejected"] == {"target_differs": N_ROWS // 2}
    assert len(rows) == N_ROWS // 2
    single, rows = shards(root, chat_template=path, reasoning="per_turn_rows")
    assert (len(rows), single.details["n_rejected"]) == (2 * N_ROWS, 0)
    assert single.work["rows_tokenized"] == 2 * N_ROWS
    again, _ = shards(root, chat_template=path, reasoning="per_turn_rows")
    assert again.reused
    dropped, rows = shards(root, chat_template=path, reasoning="drop")
    assert (len(rows), dropped.details["n_rejected"]) == (N_ROWS, 0)


def test_a_template_that_keeps_reasoning_needs_one_row(root: Path) -> None:
    made, rows = shards(root, chat_template=template(root, KEEPS))
    assert (len(rows), made.details["n_rejected"]) == (N_ROWS, 0)
    dep.write_lines(dep.landed(root)[0].with_name("more.jsonl"), [thoughtful(N_ROWS + 1)])
    added, _ = shards(root, chat_template=template(root, KEEPS))
    assert (added.work["rows_conditioned"], added.work["rows_tokenized"]) == (1, 1)


def test_an_edited_template_file_makes_its_rows_again(root: Path) -> None:
    shards(root, chat_template=template(root, KEEPS))
    made, _ = shards(root, chat_template=template(root, KEEPS + "{# #}"))
    assert made.work["rows_tokenized"] == N_ROWS


def test_calls_without_schemas_are_rejected_unless_allowed(root: Path) -> None:
    rows = dep.read_lines(dep.landed(root)[0])
    dep.write_lines(dep.landed(root)[0], [{key: value for key, value in row.items() if key != "tools"} for row in rows])
    path = template(root, KEEPS)
    assert shards(root, chat_template=path)[0].details["rejected"] == {"tools_missing": N_ROWS // 2}
    assert shards(root, chat_template=path, missing_tools="allow")[0].details["n_rejected"] == 0


def test_where_every_row_is_rejected_the_run_stops_and_shows_one(root: Path) -> None:
    with pytest.raises(SettingsError, match=r"all 12 rows were rejected .*the first one: messages\[1\]: the row reads"):
        shards(root, chat_template=template(root, PROMPTS_MORE), reasoning="drop")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("chatlm", "no native template, nor 'auto', 'base_model' or a path that ends in .jinja; did you mean 'chatml'"),
        ("gone.jinja", "cannot be read"),
        ("several", "the base model has several chat templates .default, tool_use."),
        ("a list", "found list, expected an object"),
        ("base_model", "the base model has no chat template .* set shards.chat_template to a native one"),
    ],
)
def test_a_template_that_is_not_there_is_refused_with_what_may_stand_there(tmp_path: Path, name: str, message: str) -> None:
    templates = [{"name": "default", "template": "A"}, {"name": "tool_use", "template": "B"}]
    configs: dict[str, Any] = {"several": {"chat_template": templates}, "a list": [1]}
    if name in configs:
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(configs[name]))
        name = "base_model"
    with pytest.raises(SettingsError, match=message):
        choose_template(name, tmp_path, settings={})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"chat_template": "gone.jinja"},
            r"tiny_nat.toml: shards.chat_template = 'gone.jinja': no such file .*/gone.jinja",
        ),
        ({"template_settings": {"tools": "x"}}, "settings that are no variables of a template's own: tools"),
        ({"today": "2026-02-31"}, "shards.today = '2026-02-31'"),
    ],
)
def test_a_recipe_with_a_wrong_template_setting_is_refused_when_it_is_loaded(
    root: Path, settings: dict[str, Any], message: str
) -> None:
    table = settings.pop("template_settings", None)
    with pytest.raises(SettingsError, match=message):
        shards(root, **settings, **({"template_settings.tools": "x"} if table else {}))


def test_a_relative_path_lies_beside_the_recipe(root: Path) -> None:
    (root / "recipes/own.jinja").write_text(KEEPS)
    made, _ = shards(root, chat_template="own.jinja")
    assert made.details["template"] == "own.jinja"


def test_a_checkpoint_names_the_template_of_its_rows_not_the_one_there_is_now(root: Path) -> None:
    path = template(root, KEEPS)
    shards(root, chat_template=path)
    template(root, KEEPS + "{# another #}")
    loaded = load_settings()
    lineage = Lineage(Store(loaded.home), loaded, dep.counting_child)
    card = lineage.build("tiny_nat/checkpoint").details["card"]
    assert card["chat_template"]["jinja"] == KEEPS
    with pytest.raises(StoreError, match="trained with another strategy or template"):
        lineage.build("tiny_nat/evaluation_report")


def test_the_base_models_files_give_template_and_special_tokens(tmp_path: Path) -> None:
    config = {"bos_token": {"content": "<b>"}, "eos_token": "<e>", "chat_template": [{"name": "default", "template": "A"}]}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    chosen = choose_template("base_model", tmp_path, settings={"enable_thinking": False})
    assert chosen.jinja == "A"
    assert chosen.variables() == {"bos_token": "<b>", "eos_token": "<e>", "enable_thinking": False}
    (tmp_path / "chat_template.jinja").write_text("B")
    assert choose_template("base_model", tmp_path, settings={}).jinja == "B"


def test_a_model_is_asked_and_stopped_by_the_template_of_its_rows(base_model: Path) -> None:
    chosen = choose_template("base_model", base_model, settings={})
    chat = chat_encoder(base_model / "tokenizer.json", template=chosen, max_tokens=1 << 20)
    native = chat_encoder(base_model / "tokenizer.json", template=ChatTemplate("chatml"), max_tokens=9)
    asked = [{"role": "user", "content": "How many?"}]
    assert chat.encode(asked) == native.encode(asked)  # type: ignore[arg-type]
    assert chat.end_tokens == native.end_tokens == ("<|im_end|>",)
    policy = TransformersPolicy(base_model, chat=chat, max_new_tokens_per_turn=4, batch_size=2)
    assert len(policy.act([asked])) == 1  # type: ignore[list-item]
