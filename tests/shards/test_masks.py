"""Masks of generated conversations through every published template: proved by Jinja itself, or rejected with a reason.

Prints a line per template: rows written and rejected by reason, with all turns in one row and with a row for each.
"""

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pytest

from negtraj_dagster import _trajtok
from negtraj_dagster.chat_templates import NATIVE, ChatTemplate, make_template, reference_render, served_render
from negtraj_dagster.schema import ConditionedTurn
from negtraj_dagster.shards.proof import Prover
from negtraj_dagster.shards.rows import RowSettings, row_conversations
from tests.support.real_tokenizers import PACKAGES
from tests.support.template_tokenizers import SETTINGS, save_template_tokenizer
from tests.support.tool_conversations import Maker, conditioned

TEMPLATES = PACKAGES / "trl/chat_templates"
N_FAST, N_SLOW = 40, 10_000
PER_TURN = 5
"""One in so many conversations is tried with a row for each turn, too: they make three times as many rows."""
BATCH = 500
FOR_IMAGES = {"idefics3", "llava_next", "smolvlm"}
"""These want contents as lists of blocks."""
ENDLESS = {"glm4moe"}
"""Writes nothing behind a last answer."""
SECRET = "Observation secret"
"""Stands in every text that must not be trained."""

needs_templates = pytest.mark.skipif(not TEMPLATES.is_dir(), reason="`make setup` fetches the published templates")


def text_templates() -> list[str]:
    names = sorted(path.stem for path in TEMPLATES.glob("*.jinja"))
    return [name for name in names if name.removesuffix("_training") not in FOR_IMAGES and name not in ENDLESS]


@dataclass
class Outcome:
    """What became of the conversations."""

    n_rows: int = 0
    n_proved: int = 0
    n_turns: int = 0
    n_leaked: int = 0
    n_empty: int = 0
    rejected: Counter[str] = field(default_factory=Counter)


def with_secrets(turns: list[ConditionedTurn]) -> list[ConditionedTurn]:
    """Texts of users, tools and systems say what they are."""
    return [turn if turn["role"] == "assistant" else {**turn, "content": f"{SECRET} {turn['content']}"} for turn in turns]


def conversations(maker: Maker, n: int, reasoning: str) -> list[str]:
    texts = []
    for _ in range(n):
        turns, tools = conditioned(maker.request())
        texts += row_conversations(with_secrets(turns), tools, None, RowSettings(reasoning=reasoning))  # type: ignore[arg-type]
    return texts


def run(tokenizer: _trajtok.Tokenizer, prover: Prover, reasoning: str, n: int) -> Outcome:
    outcome, maker = Outcome(), Maker(7)
    for start in range(0, n, BATCH):
        texts = {str(number): text for number, text in enumerate(conversations(maker, min(BATCH, n - start), reasoning))}
        encoded = tokenizer.encode(list(texts), list(texts.values()))
        batch = pa.record_batch(encoded)
        assert len(encoded.rejected) + batch.num_rows == len(texts)
        proof = prover.prove(batch, texts, has_straddling=encoded.n_straddling > 0)
        outcome.n_rows += batch.num_rows
        outcome.n_proved += proof.n_rows
        outcome.n_turns += proof.n_turns
        outcome.rejected.update(reason for _, reason, _ in [*encoded.rejected, *proof.rejected])
        for row in batch.to_pylist():
            trained = [prover.read(row["input_ids"][a:b]) for a, b in zip(row["span_start"], row["span_end"], strict=True)]
            outcome.n_leaked += any(SECRET in text for text in trained)
            outcome.n_empty += not trained
    return outcome


def described(name: str, whole: Outcome, single: Outcome) -> str:
    def line(outcome: Outcome) -> str:
        return f"{outcome.n_proved:,} of {outcome.n_proved + sum(outcome.rejected.values()):,} rows, {outcome.n_turns:,} turns"

    return f"{name:34} one row: {line(whole)} {dict(whole.rejected)} | per turn: {line(single)} {dict(single.rejected)}"


def check_jinja(name: str, folder: Path, n: int) -> str:
    source = (TEMPLATES / f"{name}.jinja").read_text()
    return check(make_template(name, source, settings=SETTINGS), save_template_tokenizer(source, folder), n)


def check_native(name: str, folder: Path, n: int) -> str:
    return check(ChatTemplate(name), save_template_tokenizer(NATIVE_TOKENS, folder), n)


NATIVE_TOKENS = (
    "<|im_start|><|im_end|><s></s><|begin_of_text|><|start_header_id|><|end_header_id|><|eot_id|><think></think>"
    "<tool_call></tool_call><tool_response></tool_response><tools></tools>[INST][/INST]"
)


def check(template: ChatTemplate, tokenizer_json: Path, n: int) -> str:
    name = template.name
    tokenizer = template.open_tokenizer(tokenizer_json, max_tokens=1 << 30)
    prover = Prover(tokenizer, tokenizer_json, reference_render(template), empty_think=template.empty_think)
    whole = run(tokenizer, prover, "keep", n)
    single = run(tokenizer, prover, "per_turn_rows", max(n // PER_TURN, N_FAST))
    check_outcomes(whole, single)
    assert whole.n_proved + single.n_proved > 0 or name in SERVED_ALONE
    return described(name, whole, single)


def check_served(name: str, folder: Path, n: int) -> str:
    """The same of rows as they are served."""
    source = (TEMPLATES / f"{name}.jinja").read_text()
    template = make_template(name, source, settings=SETTINGS, as_served=True)
    tokenizer_json = save_template_tokenizer(source, folder)
    tokenizer = template.open_tokenizer(tokenizer_json, max_tokens=1 << 30)
    render = served_render(reference_render(template), tokenizer.control_tokens, tokenizer.end_of_turn)
    served = run(tokenizer, Prover(tokenizer, tokenizer_json, render), "as_served", max(n // PER_TURN, N_FAST))
    check_outcomes(served)
    assert served.n_proved > 0
    return f"{name:34} as served: {served.n_proved:,} rows {dict(served.rejected)}"


def check_outcomes(*outcomes: Outcome) -> None:
    for outcome in outcomes:
        assert outcome.n_leaked == outcome.n_empty == 0
        assert outcome.n_rows == outcome.n_proved + outcome.rejected["joined_across_turn"]


SERVED_ALONE = {"deepseek_r1_distill", "deepseek_r1_distill_training", "deepseekv3", "deepseekv3_training"}
"""DeepSeek's prompt opens a thought that they never write."""


@needs_templates
@pytest.mark.parametrize("name", [*text_templates(), *sorted(ENDLESS)])
def test_every_row_as_it_is_served_is_proved_and_trains_no_observation(name: str, tmp_path: Path) -> None:
    check_served(name, tmp_path, N_FAST)


@needs_templates
@pytest.mark.slow
@pytest.mark.parametrize("name", [*text_templates(), *sorted(ENDLESS)])
def test_every_row_as_it_is_served_is_proved_on_many_conversations(name: str, tmp_path: Path) -> None:
    print(check_served(name, tmp_path, N_SLOW))


@needs_templates
@pytest.mark.parametrize("name", text_templates())
def test_every_row_is_proved_by_jinja_itself_and_trains_no_observation(name: str, tmp_path: Path) -> None:
    check_jinja(name, tmp_path, N_FAST)


@needs_templates
@pytest.mark.slow
@pytest.mark.parametrize("name", text_templates())
def test_every_row_is_proved_on_many_conversations(name: str, tmp_path: Path) -> None:
    print(check_jinja(name, tmp_path, N_SLOW))


@pytest.mark.parametrize("name", sorted({*NATIVE} - {"nat_exact"}))
def test_every_row_of_a_native_template_is_proved_by_plain_python(name: str, tmp_path: Path) -> None:
    check_native(name, tmp_path, N_FAST)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted({*NATIVE} - {"nat_exact"}))
def test_every_row_of_a_native_template_is_proved_on_many_conversations(name: str, tmp_path: Path) -> None:
    print(check_native(name, tmp_path, N_SLOW))


@needs_templates
@pytest.mark.parametrize("name", sorted(FOR_IMAGES | ENDLESS))
def test_templates_for_images_and_without_ends_are_refused_by_name(name: str, tmp_path: Path) -> None:
    source = (TEMPLATES / f"{name}.jinja").read_text()
    template = make_template(name, source, settings=SETTINGS)
    with pytest.raises(
        ValueError,
        match=f"^{name}: it (does not write what an assistant says where that is a text|writes none of the tokenizer's)",
    ):
        template.open_tokenizer(save_template_tokenizer(source, tmp_path), max_tokens=64)


def test_the_generated_conversations_have_all_that_templates_differ_in() -> None:
    texts = conversations(Maker(7), 200, "keep")
    turns = [turn for text in texts for turn in json.loads(text)["messages"]]
    assert {"reasoning", "tool_calls", "tool_call_id"} <= {key for turn in turns for key in turn}
    assert max(len(turn.get("tool_calls", ())) for turn in turns) == 8
    assert any('"tools"' in text for text in texts)
