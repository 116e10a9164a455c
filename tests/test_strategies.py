import dataclasses
import json
from pathlib import Path

import pytest

from negtraj_dagster.chat_templates import ChatTemplate, reference_render
from negtraj_dagster.errors import SettingsError
from negtraj_dagster.schema import Question, Turn
from negtraj_dagster.strategies import STRATEGIES
from negtraj_dagster.strategies.prompt_file import read_prompt_file
from negtraj_dagster.tasks.wordtraps import FORMAT_STRINGS, tokenizer_texts

QUESTION = Question("wordtraps", "q", "train", "How many?", "5")
TURNS: list[Turn] = [
    {"role": "assistant", "content": "Action: calculator[2+3]"},
    {"role": "user", "content": "Observation: 5"},
    {"role": "assistant", "content": "Action: finish[5]"},
    {"role": "user", "content": "Observation: Episode finished"},
]


def condition(strategy: str, label: str, turns: list[Turn] = TURNS) -> list[tuple[str, str, float]]:
    chosen = STRATEGIES[strategy]
    made = chosen.condition(chosen.prompter(""), QUESTION, turns, label)
    return [(turn["role"], turn["content"], turn["weight"]) for turn in made]


@pytest.mark.parametrize("strategy", sorted(STRATEGIES))
@pytest.mark.parametrize("label", ["positive", "negative"])
def test_only_the_agents_turns_are_trained(strategy: str, label: str) -> None:
    for role, _, weight in condition(strategy, label):
        assert weight == (1.0 if role == "assistant" else 0.0)


def test_nat_tells_the_classes_apart_and_asks_for_the_correct_kind() -> None:
    positive, negative = condition("nat", "positive")[0][1], condition("nat", "negative")[0][1]
    assert positive == "How many? Solve the question correctly."
    assert negative == "How many? Solve the question incorrectly."
    nat = STRATEGIES["nat"]
    assert nat.inference_turns(nat.prompter(""), QUESTION)[0]["content"] == positive


@pytest.mark.parametrize("strategy", ["vanilla", "nut"])
def test_an_untagged_strategy_trains_the_prompt_it_serves(strategy: str) -> None:
    chosen = STRATEGIES[strategy]
    served = chosen.inference_turns(chosen.prompter("Do this."), QUESTION)[0]["content"]
    assert served == "Do this.\n\nHow many?"
    for label in chosen.classes:
        assert chosen.condition(chosen.prompter("Do this."), QUESTION, TURNS, label)[0]["content"] == served


def test_turns_after_the_agents_last_one_are_left_out() -> None:
    assert condition("nat", "positive")[-1] == ("assistant", "Action: finish[5]", 1.0)


def test_a_turn_recorded_without_loss_stays_context() -> None:
    turns: list[Turn] = [{"role": "assistant", "content": "Ok.", "loss": False}, *TURNS]
    assert condition("nat", "positive", turns)[1] == ("assistant", "Ok.", 0.0)


@pytest.mark.parametrize(("loss", "weight"), [(True, 1.0), (False, 0.0), (0.25, 0.25), (2.0, 2.0)], ids=str)
def test_a_recorded_loss_is_the_turns_weight(loss: float, weight: float) -> None:
    (_, found) = condition("nat", "positive", [{"role": "assistant", "content": "Ok.", "loss": loss}])
    assert found == ("assistant", "Ok.", weight)
    assert type(found[2]) is float


@pytest.mark.parametrize("strategy", sorted(STRATEGIES))
def test_what_a_turn_says_beside_its_content_goes_along(strategy: str) -> None:
    turns: list[Turn] = [
        {
            "role": "assistant",
            "content": "abc",
            "reasoning": "I look.",
            "tool_calls": [{"name": "f", "arguments": "{}", "id": "1"}],
            "ranges": [{"field": "content", "start": 0, "end": 1, "weight": 0.0}],
            "token_ids": [1, 2],
        },
        {"role": "tool", "content": "x", "tool_call_id": "1", "name": "f"},
        {"role": "assistant", "content": "done", "loss": 0.5},
    ]
    chosen = STRATEGIES[strategy]
    made = chosen.condition(chosen.prompter(""), QUESTION, turns, chosen.classes[0])[1:]
    weights = (1.0, 0.0, 0.5)
    said = [{key: value for key, value in turn.items() if key != "loss"} for turn in turns]
    assert made == [{**keys, "weight": weight} for keys, weight in zip(said, weights, strict=True)]


def test_the_strategys_sentences_and_format_strings_stand_in_the_tokenizers_texts() -> None:
    texts = "\n".join(tokenizer_texts())
    for tag in STRATEGIES["nat"].tags.values():
        assert tag in texts
    for piece in FORMAT_STRINGS:
        assert piece in texts


def test_an_edited_sentence_is_another_strategy() -> None:
    nat = STRATEGIES["nat"]
    edited = dataclasses.replace(nat, tags={**nat.tags, "positive": " Do it right."})
    assert edited.identity() != nat.identity()


def test_chatml_is_written_as_transformers_writes_it() -> None:
    turns = STRATEGIES["nat"].condition(STRATEGIES["nat"].prompter(""), QUESTION, TURNS, "positive")
    assert reference_render(ChatTemplate("chatml"))(turns[:2], None, True) == (
        "<|im_start|>user\nHow many? Solve the question correctly.<|im_end|>\n"
        "<|im_start|>assistant\nAction: calculator[2+3]<|im_end|>\n<|im_start|>assistant\n"
    )


def test_a_prompt_file_in_nats_layout_gives_prefix_and_class_prompts(tmp_path: Path) -> None:
    entry = {
        "conversations": [{"role": "user", "content": "Rules."}, {"role": "assistant", "content": "Ok."}],
        "correct_question_prompt": "Right: {question}.",
        "incorrect_question_prompt": "Wrong: {question}.",
    }
    (tmp_path / "p.json").write_text(json.dumps({"aware": entry}))
    prompt = read_prompt_file(tmp_path / "p.json", "aware")
    nat = STRATEGIES["nat"]
    made = nat.condition(prompt, QUESTION, TURNS, "negative")
    assert [turn["content"] for turn in made[:3]] == ["Rules.", "Ok.", "Wrong: How many?."]
    assert [turn["weight"] for turn in made[:3]] == [0.0, 0.0, 0.0]
    assert nat.inference_turns(prompt, QUESTION)[-1]["content"] == "Right: How many?."


def test_a_missing_prompt_entry_names_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text(json.dumps({"zero-shot": {"conversations": []}}))
    with pytest.raises(SettingsError, match=r"no entry 'zero-shto'; did you mean 'zero-shot'\?"):
        read_prompt_file(tmp_path / "p.json", "zero-shto")


def test_the_real_prompt_file_serves_both_classes(nat_dir: Path) -> None:
    prompt = read_prompt_file(nat_dir / "prompts/StrategyQA/StrategyQA_conversation.json", "zero-shot-target-aware")
    right, wrong = (prompt(QUESTION, name)[-1]["content"] for name in ("positive", "negative"))
    assert right != wrong
    assert QUESTION.question in right
    assert len(prompt(QUESTION, "positive")) == 3
