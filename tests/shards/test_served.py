"""Rows as they are served: the prompt that a model is given and the answer, for templates that write another beginning."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from negtraj_dagster import _trajtok
from negtraj_dagster.chat_templates import ChatTemplate, make_template, reference_render, served_render
from negtraj_dagster.schema import ConditionedTurn
from negtraj_dagster.shards.proof import Prover
from negtraj_dagster.shards.rows import RowSettings, row_conversations
from negtraj_dagster.shards.tokenize import _make_prover, token_rule
from negtraj_dagster.store import Store
from tests.support.template_tokenizers import SETTINGS, save_template_tokenizer

CHAT = (
    "{% for m in messages %}"
    "{% if m.role == 'assistant' %}<|assistant|>\n"
    "%ANSWER%"
    "{% else %}<|user|>\n{{ m.content }}<|end|>\n{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n%PROMPT%{% endif %}"
)
TOKENS = "{# <think></think><|channel><channel|><|text|><|thinking|><|thought|> #}"


def chat(answer: str, prompt: str) -> str:
    return TOKENS + CHAT.replace("%ANSWER%", answer).replace("%PROMPT%", prompt)


SAID = "{{ m.content }}<|end|>\n"
LAST = "{% if loop.last and m.reasoning_content %}"
KINDS = {
    "opens a thought and writes none": (chat(SAID, "<think>\n"), "<think>\n\n</think>\n\nyes<|end|>"),
    "opens a thought in its line": (chat(SAID, "<think>"), "<think></think>yes<|end|>"),
    "opens and closes a thought": (chat(SAID, "<think>\n</think>"), "<think>\n</think>yes<|end|>"),
    "opens a channel and closes it": (chat(SAID, "<|channel>thought\n<channel|>"), "<|channel>thought\n<channel|>yes<|end|>"),
    "closes in a conversation what it opens": (chat("</think>" + SAID, "<think>"), "<think></think>yes<|end|>"),
    "closes both": (chat("</think>" + SAID, "<think></think>"), "<think></think>yes<|end|>"),
    "writes an empty thought": (
        chat(LAST + "<think>\n{{ m.reasoning_content }}\n</think>\n{% else %}<think></think>{% endif %}" + SAID, "<think>\n"),
        "<think>\n\n</think>\nyes<|end|>",
    ),
    "has tokens of its own for thoughts": (
        chat(LAST + "<|thinking|>{{ m.reasoning_content }}<|thought|>{% endif %}<|text|>" + SAID, "<|thinking|>"),
        "<|thinking|><|thought|><|text|>yes<|end|>",
    ),
    "opens a thought by words": (
        chat(LAST + "{{ m.reasoning_content }}\n[FINAL]\n{% endif %}" + SAID, "My steps:\n"),
        "My steps:\n\n[FINAL]\nyes<|end|>",
    ),
    "ends turns by the next header": (chat("{{ m.content }}", ""), "yes<|user|>"),
    "ends a turn only where another follows": (
        chat("{{ m.content }}{% if not loop.last %}<|end|>\n{% endif %}", ""),
        "yes<|end|>",
    ),
    "asks again behind an answer": (
        chat(SAID + "{% if loop.last %}<|user|>\nWrite an action.<|end|>\n{% endif %}", ""),
        "yes<|end|>",
    ),
    "closes turns by tokens and words": (
        chat("<|text|>{{ m.content }}<|thought|>text<|end|>\n", "<|text|>"),
        "<|text|>yes<|thought|>text<|end|>",
    ),
    "writes what is served": (chat(SAID, ""), "yes<|end|>\n"),
}


def conversation(*answers: str, thought: str = "") -> list[ConditionedTurn]:
    turns: list[ConditionedTurn] = []
    for n, answer in enumerate(answers):
        turns.append({"role": "user", "content": f"question {n}?", "weight": 0.0})
        turns.append({"role": "assistant", "content": answer, "weight": 1.0})
    if thought:
        turns[-1]["reasoning"] = thought
    return turns


class Made:
    """A template bound to a tokenizer that has its tokens."""

    def __init__(self, source: str, folder: Path, *, as_served: bool = True, **more: Any) -> None:
        self.template: ChatTemplate = make_template("t.jinja", source, settings=SETTINGS, as_served=as_served, **more)
        self.rule = token_rule(save_template_tokenizer(source, folder).parent, self.template, 4096, "drop")
        self.tokenizer = self.template.open_tokenizer(self.rule.tokenizer_json, max_tokens=4096)
        self.prover: Prover = _make_prover(self.rule, self.tokenizer)

    def rows(self, turns: list[ConditionedTurn]) -> tuple[list[tuple[str, str]], list[str]]:
        """Proved rows as the text of all their tokens and of those that are trained; the reasons of the others."""
        reasoning = "as_served" if self.template.as_served else "per_turn_rows"
        texts = {str(n): text for n, text in enumerate(row_conversations(turns, None, None, RowSettings(reasoning)))}
        encoded = self.tokenizer.encode(list(texts), list(texts.values()))
        batch = pa.record_batch(encoded)
        proof = self.prover.prove(batch, texts, has_straddling=encoded.n_straddling > 0)
        assert proof.n_rows == batch.num_rows - len(proof.rejected)
        found = []
        for row in batch.to_pylist():
            ids = row["input_ids"]
            trained = [ids[start:end] for start, end in zip(row["span_start"], row["span_end"], strict=True)]
            found.append((self.prover.read(ids), "".join(self.prover.read(part) for part in trained)))
        return found, [detail for _, _, detail in [*encoded.rejected, *proof.rejected]]


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_is_the_served_prompt_and_the_answer(kind: str, tmp_path: Path) -> None:
    source, expected = KINDS[kind]
    made = Made(source, tmp_path)
    turns = conversation("no", "yes")
    rows, rejected = made.rows(turns)
    assert rejected == []
    assert len(rows) == 2
    prompt = reference_render(make_template("t", source, settings=SETTINGS))(turns[:-1], None, True)
    text, trained = rows[-1]
    assert text.startswith(prompt)
    assert text.rstrip().endswith(expected.rstrip())
    assert trained.endswith(("yes<|user|>", "yes<|end|>", "yes<|thought|>text<|end|>"))
    assert "question" not in trained


@pytest.mark.parametrize("kind", KINDS)
def test_without_the_setting_the_row_is_refused_and_the_setting_named(kind: str, tmp_path: Path) -> None:
    source, _ = KINDS[kind]
    if kind == "ends turns by the next header":
        with pytest.raises(_trajtok.TemplateError, match='with reasoning = "as_served" the header'):
            Made(source, tmp_path, as_served=False)
        return
    rows, rejected = Made(source, tmp_path, as_served=False).rows(conversation("yes"))
    if kind == "writes what is served":
        assert rejected == []
    else:
        assert rows == []
        named = (
            'take reasoning = "as_served"',
            "no token ends the turn",
            "the template treats the last turn apart",
            "begins another message behind the turn",
        )
        assert all(any(words in detail for words in named) for detail in rejected)


def test_a_call_that_nothing_ends_is_ended_by_the_header_of_its_result(tmp_path: Path) -> None:
    source = (
        "{# <|user|><|tool|><|assistant|> #}{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}"
        "{% for c in m.tool_calls or [] %}<call>{{ c.function.name }} {{ c.function.arguments | tojson }}</call>{% endfor %}"
        "{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
    )
    made = Made(source, tmp_path)
    turns = conversation("", "yes")
    turns[1]["tool_calls"] = [{"name": "look", "arguments": '{"at": "it"}'}]
    turns[2] = {"role": "tool", "content": "seen", "weight": 0.0}
    rows, rejected = made.rows(turns)
    assert rejected == []
    assert [trained for _, trained in rows] == ['<call>look {"at": "it"}</call><|tool|>', "yes<|user|>"]


def test_a_thought_goes_where_the_prompt_opens_one(tmp_path: Path) -> None:
    made = Made(KINDS["opens a thought and writes none"][0], tmp_path)
    ((text, trained),), rejected = made.rows(conversation("yes", thought="well, well"))
    assert rejected == []
    assert text.endswith("<|assistant|>\n<think>\nwell, well\n</think>\n\nyes<|end|>\n")
    assert trained == "well, well\n</think>\n\nyes<|end|>"


def test_a_thought_behind_a_prompt_that_closed_it_is_refused(tmp_path: Path) -> None:
    rows, (detail,) = Made(KINDS["opens and closes a thought"][0], tmp_path).rows(conversation("yes", thought="well"))
    assert rows == []
    assert "leaves out its reasoning" in detail


@pytest.mark.parametrize("empty_think", ["mask", "train"])
def test_an_empty_thought_is_trained_where_that_is_asked_for(empty_think: str, tmp_path: Path) -> None:
    made = Made(KINDS["opens a thought and writes none"][0], tmp_path, empty_think=empty_think)
    ((_, trained),), _ = made.rows(conversation("yes"))
    assert trained == ("yes<|end|>" if empty_think == "mask" else "\n</think>\n\nyes<|end|>")


THOUGHTFUL = "{% if m.reasoning_content %}<think>\n{{ m.reasoning_content }}\n</think>\n\n{% endif %}" + SAID


@pytest.mark.parametrize(
    ("answer", "prompt"),
    [
        (THOUGHTFUL, "<think>\n\n</think>\n\n"),
        (THOUGHTFUL, "</think>"),
        ("{{ m.reasoning_content }}\n[FINAL]\n" + SAID, "My steps:\n"),
        ("{{ m.reasoning_content }}</think>" + SAID, "<think>"),
        ("<think>{{ m.reasoning_content }}</think>" + SAID, "<think>\n"),
        (THOUGHTFUL, "<think>\nOkay,"),
    ],
)
def test_a_thought_that_does_not_go_on_with_the_prompt_is_neither_doubled_nor_said(
    answer: str, prompt: str, tmp_path: Path
) -> None:
    rows, rejected = Made(chat(answer, prompt), tmp_path).rows(conversation("yes", thought="well"))
    assert rows == [] or rows[0][1] == "well</think>yes<|end|>"  # where it does go on
    assert len(rows) + len(rejected) == 1


@pytest.mark.parametrize("thought", ["<think></think>", "<think>\n\n</think>\n\n", "<think>\n", "<|channel><channel|>"])
def test_a_prompt_that_changes_what_was_asked_makes_no_row(thought: str, tmp_path: Path) -> None:
    source = TOKENS + (
        "{% for m in messages %}{% if m.role == 'assistant' %}<|assistant|>\n{{ m.content }}<|end|>\n"
        "{% else %}<|user|>\n{{ m.content }}{% if loop.last and add_generation_prompt %} /no_think{% endif %}<|end|>\n"
        "{% endif %}"
        "{% endfor %}{% if add_generation_prompt %}<|assistant|>\n" + thought + "{% endif %}"
    )
    rows, rejected = Made(source, tmp_path).rows(conversation("no", "yes"))
    assert rows == []
    assert len(rejected) == 2


def test_an_answer_behind_two_tokens_of_other_names_is_in_what_they_open(tmp_path: Path) -> None:
    rows, _ = Made(chat(SAID, "<|text|><|thinking|>"), tmp_path).rows(conversation("yes"))
    assert rows == []


@pytest.mark.parametrize("behind", ["<|channel>Remember the rules.<|end|>\n", "Reward: <|text|>\n"])
@pytest.mark.parametrize("as_served", [True, False])
def test_words_that_a_template_writes_behind_every_answer_are_not_trained(behind: str, as_served: bool, tmp_path: Path) -> None:
    source = chat(SAID + behind, "")
    try:
        rows, _ = Made(source, tmp_path, as_served=as_served).rows(conversation("no", "yes"))
    except _trajtok.TemplateError:
        return
    assert all("Remember" not in trained and "Reward" not in trained for _, trained in rows)


@pytest.mark.parametrize("prompt", ["<|thinking|>", "My steps:\n", "<|thinking|>so"])
def test_what_a_prompt_opens_and_nothing_closes_makes_no_row(prompt: str, tmp_path: Path) -> None:
    rows, (detail,) = Made(chat(SAID, prompt), tmp_path).rows(conversation("yes"))
    assert rows == []
    assert "where a served model is given" in detail


def test_a_template_that_writes_on_behind_an_answer_is_refused(tmp_path: Path) -> None:
    source = chat(SAID + "{% if loop.last %}Now write an action.<|end|>{% endif %}", "")
    assert Made(chat(SAID + "{% if loop.last %}<|user|>Write.<|end|>{% endif %}", ""), tmp_path)
    with pytest.raises(_trajtok.TemplateError, match="it writes text of its own behind an assistant's turn that ends"):
        Made(source, tmp_path)


def test_the_setting_is_another_template_and_other_rows() -> None:
    source = KINDS["writes what is served"][0]
    plain, served = (make_template("t", source, as_served=as_served) for as_served in (False, True))
    assert plain.identity({}) != served.identity({})
    assert ChatTemplate.from_json(json.loads(json.dumps(served.to_json()))) == served
    assert "as_served" not in plain.to_json()
    assert make_template("chatml", as_served=True) == make_template("chatml")


CONTENTS = st.lists(
    st.sampled_from(
        ["a", " ", "\n", "yes", "<think>", "</think>", "<|end|>", "<|user|>", "<|assistant|>", "[FINAL]", "é", "<|", ">"]
    ),
    min_size=1,
    max_size=5,
).map("".join)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(CONTENTS, min_size=1, max_size=3), st.none() | CONTENTS)
def test_hostile_contents_make_a_proved_row_or_a_refusal(
    kind: str, tmp_path: Path, contents: list[str], thought: str | None
) -> None:
    made = MADE.get(kind) or MADE.setdefault(kind, Made(KINDS[kind][0], tmp_path))
    turns = conversation(*contents, thought=thought or "")
    rows, rejected = made.rows(turns)  # a row that fails its proof raises
    assert len(rows) + len(rejected) >= 1
    for text, trained in rows:
        assert trained in text


MADE: dict[str, Made] = {}


@pytest.mark.parametrize("kind", KINDS)
def test_both_engines_put_the_same_text_together(kind: str, tmp_path: Path) -> None:
    made = Made(KINDS[kind][0], tmp_path)
    render = served_render(reference_render(made.template), made.tokenizer.control_tokens, made.tokenizer.end_of_turn)
    asked = [conversation("yes"), conversation("no", "yes"), conversation("a\n\n", "\nb"), conversation("yes", thought="well")]
    n_written = 0
    for text in (text for turns in asked for text in row_conversations(turns, None, None, RowSettings("as_served"))):
        try:
            ours = "".join(part for part, _, _ in made.tokenizer.render(text))
        except _trajtok.TrajtokError as error:
            assert "leaves out its reasoning" in str(error) or "a served model is given" in str(error)  # noqa: PT017 - no place
            continue
        assert ours == render(json.loads(text)["messages"], None, False)
        n_written += 1
    assert n_written >= 5


def test_rows_that_are_served_are_kept_apart_in_the_store(tmp_path: Path) -> None:
    made, plain = (Made(KINDS["writes what is served"][0], tmp_path, as_served=as_served) for as_served in (True, False))
    assert made.rule.rule_key != plain.rule.rule_key
    assert Store(tmp_path / "home").segments(f"tokens/{made.rule.rule_key[:16]}") == []
