"""What an evaluated agent is given is what its rows have before a turn, id by id.

The rows' own making on one side, the agent's encoder on the other, over recorded and drawn conversations.
"""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from tokenizers import Tokenizer

from negtraj_dagster.agent.call_syntax import argument_types, find_call_syntax
from negtraj_dagster.agent.clients import bind_encoder
from negtraj_dagster.chat_templates import ChatTemplate, make_template
from negtraj_dagster.rollouts.collect import land_teacher_rollouts
from negtraj_dagster.rollouts.detect import parsed_documents
from negtraj_dagster.rollouts.documents import read_parsed
from negtraj_dagster.rollouts.formats import FORMATS
from negtraj_dagster.schema import Question, Rollout, ToolCall, Turn, canonical_json, json_as_recorded
from negtraj_dagster.settings import Settings, WordtrapsSettings
from negtraj_dagster.shards.conditioning import Recorded, condition_rows
from negtraj_dagster.shards.rows import RowSettings, is_target
from negtraj_dagster.shards.tokenize import TokenRule, load_tokenizer, token_rule
from negtraj_dagster.strategies import STRATEGIES
from negtraj_dagster.tasks.strategyqa import STRATEGYQA
from negtraj_dagster.tasks.wordtraps import WORDTRAPS
from tests.conftest import SAMPLE_DATA
from tests.rollouts.formats.test_real_samples import EXPECTED
from tests.support.published_templates import TRL
from tests.support.real_tokenizers import real_tokenizer
from tests.support.template_tokenizers import SETTINGS, save_template_tokenizer
from tests.support.tool_conversations import Maker

NAT = STRATEGIES["nat"]
N_QUICK = 40
EMPTY_THINK = ("", "<think></think>", "</think>")


def rollouts_of(path: Path, format_name: str, task: str) -> Iterator[Rollout]:
    format_ = FORMATS[format_name]
    for _, document in parsed_documents(path, [format_], None):
        yield from (rollout for rollout in read_parsed(format_, task, document) if isinstance(rollout, Rollout))


def compare(
    rollouts: Sequence[tuple[Question, Rollout]], rule: TokenRule, *, instruction: str = ""
) -> tuple[Counter[str], int]:
    """Rejected rows by reason, and how many prompts were compared: those of all trained turns of all rows that are made."""
    prompter, tokenizer = NAT.prompter(instruction), load_tokenizer(rule)
    served = rule.template.open_tokenizer(rule.tokenizer_json, max_tokens=1)
    recorded = [
        Recorded(question, "positive", canonical_json(list(rollout.turns)), rollout.tools, None)
        for question, rollout in rollouts
    ]
    by_rollout = condition_rows(recorded, NAT, prompter, rule.rows, keep_last_turns=False)
    reasons: Counter[str] = Counter()
    n_prompts = 0
    for (question, rollout), rows in zip(rollouts, by_rollout, strict=True):
        chat = bind_encoder(served, rollout.tools)
        asked = NAT.inference_turns(prompter, question)
        played: list[Turn] = [*asked, *({key: turn[key] for key in turn if key != "loss"} for turn in rollout.turns)]  # type: ignore[misc]
        batch = tokenizer.encode([str(n) for n in range(len(rows))], rows)
        reasons.update(reason for _, reason, _ in batch.rejected)
        for row in pl.DataFrame(batch).iter_rows(named=True):
            messages = json.loads(rows[int(row["token_key"])])["messages"]
            targets = [index for index, message in enumerate(messages) if is_target(message)]
            for index, start in zip(targets, row["span_start"], strict=True):
                prompt = chat.encode(played[:index])
                assert row["input_ids"][: len(prompt)] == prompt
                between = text_of(rule.tokenizer_json, tuple(row["input_ids"][len(prompt) : start]))
                assert "".join(between.split()) in EMPTY_THINK
                n_prompts += 1
    return reasons, n_prompts


@lru_cache
def text_of(tokenizer_json: Path, ids: tuple[int, ...]) -> str:
    """Tokens between a prompt and the first trained one: few, and the same again and again."""
    return str(Tokenizer.from_file(str(tokenizer_json)).decode(list(ids), skip_special_tokens=False)) if ids else ""


def teacher(tmp_path: Path, n_questions: int) -> list[tuple[Question, Rollout]]:
    settings = Settings(home=tmp_path / "home", wordtraps=WordtrapsSettings(n_train_questions=n_questions))
    path = land_teacher_rollouts(settings)
    assert path is not None
    questions = {question.question_id: question for question in WORDTRAPS.questions(settings)}
    rollouts = rollouts_of(path, "negtraj", "wordtraps")
    return [(questions[rollout.question_id], rollout) for rollout in rollouts if rollout.reward]


def strategyqa(tmp_path: Path, nat_dir: Path) -> list[tuple[Question, Rollout]]:
    questions = {q.question_id: q for q in STRATEGYQA.questions(Settings(home=tmp_path, nat_dir=nat_dir))}
    rollouts = rollouts_of(nat_dir / "strategyqa/strategyqa_gpt-3.5_positive.json", "nat", "strategyqa")
    return [(questions[rollout.question_id], rollout) for rollout in rollouts]


def chatml() -> TokenRule:
    return token_rule(real_tokenizer("qwen").parent, ChatTemplate("chatml"), 1 << 20, "drop")


def native() -> list[tuple[Question, Rollout]]:
    """Every recorded conversation that calls tools, or was offered some."""
    folder = SAMPLE_DATA / "formats"
    if not folder.is_dir():
        pytest.skip("no sample data")
    pairs = []
    for name, (format_name, _, _) in EXPECTED.items():
        for number, rollout in enumerate(rollouts_of(folder / name, format_name, "recorded")):
            if rollout.prompt and (rollout.tools or any("tool_calls" in turn for turn in rollout.turns)):
                question = Question("recorded", f"{name} {number}", "train", "", "null", prompt=rollout.prompt_json)
                pairs.append((question, rollout))
    return pairs


def drawn(n_requests: int) -> list[tuple[Question, Rollout]]:
    """Conversations with tools, drawn by seed: parallel calls, reasoning, odd texts."""
    from tests.support.tool_conversations import conditioned

    maker, pairs = Maker(3), []
    while len(pairs) < n_requests:
        conditioned_turns, tools = conditioned(maker.request())
        first = next((n for n, turn in enumerate(conditioned_turns) if turn["role"] == "assistant"), None)
        if first is None or tools is None:
            continue
        turns: list[Turn] = [{key: turn[key] for key in turn if key != "weight"} for turn in conditioned_turns]  # type: ignore[misc]
        prompt = canonical_json(turns[:first])
        rollout = Rollout("recorded", str(len(pairs)), "drawn", tuple(turns[first:]), True, tools=tools)
        pairs.append((Question("recorded", str(len(pairs)), "train", "", "null", prompt=prompt), rollout))
    return pairs


def qwen3_rule() -> TokenRule:
    rows = RowSettings(reasoning="per_turn_rows", missing_tools="allow")
    return token_rule(real_tokenizer("qwen").parent, ChatTemplate("qwen3"), 1 << 20, "drop", rows)


def served_rule(name: str, folder: Path) -> TokenRule:
    path = TRL / f"{name}.jinja"
    if not path.is_file():
        pytest.skip(f"{path.name} is missing: run `make setup`")
    template = make_template(path.name, path.read_text("utf-8"), settings=SETTINGS, as_served=True)
    rows = RowSettings(reasoning="as_served", missing_tools="allow")
    save_template_tokenizer(path.read_text("utf-8"), folder)
    return token_rule(folder, template, 1 << 20, "drop", rows)


def test_react_prompts_of_the_teacher(tmp_path: Path) -> None:
    pairs = teacher(tmp_path, 150)
    reasons, n_prompts = compare(pairs, chatml(), instruction=WORDTRAPS.instruction)
    assert reasons == {}
    assert n_prompts == sum(turn["role"] == "assistant" for _, rollout in pairs for turn in rollout.turns) > 80


def test_react_prompts_of_strategyqa(tmp_path: Path, nat_dir: Path) -> None:
    pairs = strategyqa(tmp_path, nat_dir)[:N_QUICK]
    reasons, n_prompts = compare(pairs, chatml(), instruction=STRATEGYQA.instruction)
    assert reasons == {}
    assert n_prompts > N_QUICK


@pytest.mark.slow
def test_react_prompts_of_every_positive(tmp_path: Path, nat_dir: Path) -> None:
    for task, pairs in {WORDTRAPS: teacher(tmp_path, 2050), STRATEGYQA: strategyqa(tmp_path, nat_dir)}.items():
        reasons, n_prompts = compare(pairs, chatml(), instruction=task.instruction)
        assert reasons == {}
        assert n_prompts == sum(turn["role"] == "assistant" for _, rollout in pairs for turn in rollout.turns)
        assert len(pairs) > 400


@pytest.mark.parametrize("name", ["qwen3", "qwen3_5_think"])
def test_native_prompts_of_recorded_conversations(name: str, tmp_path: Path) -> None:
    pairs = native()
    rule = qwen3_rule() if name == "qwen3" else served_rule(name, tmp_path)
    reasons, n_prompts = compare(pairs, rule)
    assert len(pairs) > 25
    assert sum(reasons.values()) < 5
    assert n_prompts > 130


@pytest.mark.parametrize("name", ["qwen3", "qwen3_5_think", "nemotron_3_nano", "qwen2_5"])
def test_native_prompts_of_drawn_conversations(name: str, tmp_path: Path) -> None:
    rule = qwen3_rule() if name == "qwen3" else served_rule(name, tmp_path)
    reasons, n_prompts = compare(drawn(60), rule)
    assert reasons.keys() <= {"not_rendered", "template_reads_content"}
    assert n_prompts > 150


@pytest.mark.parametrize("name", ["qwen3", "qwen3_5_think", "qwen2_5", "glm4moe"])
def test_recorded_turns_are_read_back_from_their_ids(name: str, tmp_path: Path) -> None:
    """Decoded as a model's tokens are, and read in the template's syntax: calls, content and reasoning are those recorded."""
    rule = qwen3_rule() if name == "qwen3" else served_rule(name, tmp_path)
    tokenizer, decoder = load_tokenizer(rule), Tokenizer.from_file(str(rule.tokenizer_json))
    syntax = find_call_syntax(rule.template, rule.tokenizer_json)
    end_ids = {decoder.token_to_id(token) for token in tokenizer.end_of_turn}
    n_calls = 0
    for question, rollout in native():
        recorded = Recorded(question, "positive", canonical_json(list(rollout.turns)), rollout.tools, None)
        ((*rows,),) = condition_rows([recorded], NAT, NAT.prompter(""), rule.rows, keep_last_turns=False)
        for row in pl.DataFrame(tokenizer.encode([str(n) for n in range(len(rows))], rows)).iter_rows(named=True):
            turn = json.loads(rows[int(row["token_key"])])["messages"][-1]
            ids = row["input_ids"][row["span_start"][0] : row["span_end"][-1]]
            end = next(n for n, token_id in enumerate(ids) if token_id in end_ids)
            read = syntax.read(decoder.decode(ids[:end], skip_special_tokens=False), argument_types(rollout.tools))
            assert read.fault is None
            is_typed = syntax.name == "hermes" or rollout.tools is not None  # else nothing tells "7" from 7
            expected = [call_of(call, is_typed=is_typed) for call in turn.get("tool_calls", ())]
            assert [call_of(call, is_typed=is_typed) for call in read.tool_calls] == expected
            assert (read.content.strip(), read.reasoning.strip()) == (
                turn["content"].strip(),
                turn.get("reasoning", "").strip(),
            )
            n_calls += len(read.tool_calls)
    assert n_calls > 100


def call_of(call: ToolCall, *, is_typed: bool) -> tuple[str, Any]:
    arguments = json.loads(call["arguments"])
    if not is_typed:  # one template writes Python's True, which no schema says is none
        texts = {key: value if isinstance(value, str) else json_as_recorded(value) for key, value in arguments.items()}
        arguments = {key: {"True": "true", "False": "false", "None": "null"}.get(text, text) for key, text in texts.items()}
    return call["name"], arguments
