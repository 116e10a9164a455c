"""From generated ids to the tool and back: a model that says a row's own tokens has the row's own conversation.

The tags of a call are added tokens here, some of them special, as in the models' own tokenizers.
"""

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from negtraj_dagster.agent.call_syntax import find_call_syntax
from negtraj_dagster.agent.clients import TransformersPolicy, chat_encoder
from negtraj_dagster.agent.loop import run_episodes
from negtraj_dagster.agent.tools import TOOLS
from negtraj_dagster.agent.tools.schemas import native_rules, tool_schemas
from negtraj_dagster.chat_templates import make_template
from negtraj_dagster.schema import ConditionedTurn, Question, conditioned_json
from tests.agent.test_call_syntax import AXOLOTL, DEEPSEEK_V31, source_of
from tests.support.lively_model import make_lively_model
from tests.support.published_templates import TRL
from tests.support.template_tokenizers import SETTINGS, save_template_tokenizer

QWEN3, THINK = TRL / "qwen3.jinja", TRL / "qwen3_5_think.jinja"
TEMPLATES = [
    *(QWEN3, THINK, TRL / "gemma4_v5.jinja", TRL / "glm4moe.jinja", TRL / "lfm2_2_5.jinja", TRL / "llama3_1.jinja"),
    *(AXOLOTL / "mistral_v3_tekken.jinja", AXOLOTL / "jamba.jinja"),
]
ASKED = "What is (2+3)*4?"
CALL = {"name": "calculator", "arguments": '{"expression": "(2+3)*4"}', "id": "call00000"}


def recorded(thought: str) -> list[ConditionedTurn]:
    said: dict[str, Any] = {"reasoning": thought} if thought else {}
    return [
        {"role": "user", "content": ASKED, "weight": 0.0},
        {"role": "assistant", "content": "", "tool_calls": [CALL], "weight": 1.0, **said},  # type: ignore[list-item, typeddict-item]
        {"role": "tool", "content": "20", "tool_call_id": "call00000", "name": "calculator", "weight": 0.0},
        {"role": "assistant", "content": "It is 20.", "weight": 1.0},
    ]


def replay(source: str, folder: Path, thought: str) -> tuple[list[list[int]], list[list[int]], Any]:
    """The prompts that rows have before the agent's turns, those that an evaluation makes, and its episode."""
    template, tools = make_template("t.jinja", source, settings=SETTINGS, as_served=True), tool_schemas(("calculator",))
    tokenizer_json = save_template_tokenizer(source, make_lively_model(folder, n_tokens=1000))
    tokenizer = template.open_tokenizer(tokenizer_json, max_tokens=1 << 20)
    turns = recorded(thought)
    rows = [conditioned_json([*({**turn, "weight": 0.0} for turn in turns[:n]), turns[n]], tools) for n in (1, 3)]  # type: ignore[list-item]
    batch = tokenizer.encode(["0", "1"], rows)
    assert batch.rejected == []
    table = list(pl.DataFrame(batch).iter_rows(named=True))
    answers = [row["input_ids"][row["span_start"][0] : row["span_end"][-1]] for row in table]
    chat = chat_encoder(tokenizer_json, template=template, max_tokens=1, tools=tools)
    policy = TransformersPolicy(folder, chat=chat, max_new_tokens_per_turn=64, batch_size=1)
    prompts: list[list[int]] = []

    def generate(given: list[list[int]], *_: Any, **__: Any) -> tuple[list[Any], list[Any]]:
        prompts.append(list(given[0]))
        return [policy._read(answers[len(prompts) - 1])], []

    policy._generate = generate  # type: ignore[method-assign]
    (episode,) = run_episodes(
        policy,
        [Question("t", "q", "test", ASKED, "20")],
        first_turns=lambda q: [{"role": "user", "content": q.question}],
        tools={"calculator": TOOLS["calculator"]},
        max_turns=3,
        native=native_rules(find_call_syntax(template, tokenizer_json), ("calculator",)),
    )
    expected = [row["input_ids"][: len(prompt)] for row, prompt in zip(table, prompts, strict=True)]
    return expected, prompts, episode


@pytest.mark.parametrize("path", TEMPLATES, ids=[path.stem for path in TEMPLATES])
def test_a_rows_own_tokens_are_its_conversation(path: Path, tmp_path: Path) -> None:
    expected, prompts, episode = replay(source_of(path), tmp_path, "")
    turns = recorded("")
    assert episode.turns == [{key: turn[key] for key in turn if key != "weight"} for turn in turns]  # type: ignore[literal-required]
    assert prompts == expected
    assert (episode.prediction, episode.stops) == ("It is 20.", ["end_token", "end_token"])


def test_deepseeks_tokens_too(tmp_path: Path) -> None:
    expected, prompts, episode = replay(DEEPSEEK_V31, tmp_path, "")
    assert (prompts, episode.prediction, episode.n_tool_calls) == (expected, "It is 20.", 1)


@pytest.mark.parametrize("path", [QWEN3, THINK], ids=["qwen3", "qwen3_5_think"])
def test_reasoning_before_a_call_is_kept_apart(path: Path, tmp_path: Path) -> None:
    expected, prompts, episode = replay(source_of(path), tmp_path, "I multiply.")
    assert episode.turns[1]["reasoning"] == "I multiply."
    assert (prompts, episode.prediction) == (expected, "It is 20.")
