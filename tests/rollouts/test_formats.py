from typing import Any

import pytest

from negtraj_dagster.errors import RolloutFormatError
from negtraj_dagster.rollouts.formats import FORMATS
from negtraj_dagster.rollouts.formats.nat import read_record as read_nat_record
from negtraj_dagster.rollouts.formats.negtraj import read_record as read_negtraj_record
from negtraj_dagster.schema import Rollout

NAT_RECORD: dict[str, Any] = {
    "conversations": [
        {"role": "assistant", "content": "Thought: a\n\nAction: finish[Yes]", "loss": True},
        {"role": "user", "content": "Observation: Episode finished", "loss": False},
    ],
    "id": "b8",
    "info": {"reward": True, "gt": True, "pred": "Yes", "acc": True},
    "source": "0.5",
}


def test_a_nat_record_keeps_turns_outcome_and_temperature() -> None:
    rollout = read_nat_record("strategyqa", NAT_RECORD)
    assert [turn["role"] for turn in rollout.turns] == ["assistant", "user"]
    assert (rollout.question_id, rollout.source, rollout.reward, rollout.pred) == ("b8", "0.5", True, "Yes")
    assert rollout.gold == "true"


def test_nats_legacy_spellings_read_the_same() -> None:
    legacy = {
        "items": [
            {"from": "gpt", "value": "Thought: a\n\nAction: finish[Yes]"},
            {"from": "human", "value": "Observation: Episode finished"},
        ],
        **{key: NAT_RECORD[key] for key in ("id", "info", "source")},
    }
    assert read_nat_record("strategyqa", legacy) == read_nat_record("strategyqa", NAT_RECORD)


def test_an_unfinished_nat_record_without_turns_is_kept_for_the_filters() -> None:
    rollout = read_nat_record("strategyqa", {"conversations": [], "id": "b8", "info": {"reward": False, "gt": True}})
    assert (rollout.turns, rollout.reward, rollout.pred) == ((), False, None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"id": 7.5}, "id: found float, expected str"),
        ({"conversations": "x"}, r"conversations: found str \(1 characters\), expected list"),
        (
            {"conversations": [{"role": "robot", "content": ""}]},
            r"\[0\].role: found str \(5 characters\), expected one of",
        ),
        ({"conversations": [{"role": "user", "content": "x", "loss": True}]}, "only the agent's turns are trained"),
        ({"conversations": [{"role": "user", "content": None}]}, "content: found NoneType, expected str"),
        ({"info": {"reward": 0.7}}, "reward: found float, expected bool; write true for success .* a threshold of yours"),
    ],
    ids=["id", "conversations", "role", "loss", "content", "reward"],
)
def test_a_malformed_nat_record_says_what_was_expected(change: dict[str, object], message: str) -> None:
    with pytest.raises(RolloutFormatError, match=message):
        read_nat_record("strategyqa", {**NAT_RECORD, **change})


def test_an_evaluation_episode_is_refused_at_the_door() -> None:
    record = {"question_id": "q", "messages": [], "is_evaluation": True}
    with pytest.raises(RolloutFormatError, match="must not enter training"):
        read_negtraj_record("wordtraps", record)


def test_an_unknown_key_in_our_own_format_is_refused() -> None:
    with pytest.raises(RolloutFormatError, match=r"unknown keys \['rewrad'\]"):
        read_negtraj_record("wordtraps", {"question_id": "q", "messages": [], "rewrad": True})


def test_a_record_that_holds_its_prompt_is_refused_with_the_remedy() -> None:
    messages = [{"role": "user", "content": "How many?"}, {"role": "assistant", "content": "Action: finish[1]"}]
    with pytest.raises(RolloutFormatError, match="leave the first prompt out"):
        read_negtraj_record("wordtraps", {"question_id": "q", "messages": messages})


def test_the_outcome_is_no_part_of_a_rollouts_identity() -> None:
    flipped = {**NAT_RECORD, "info": {"reward": False, "gt": False, "pred": "No"}}
    assert read_nat_record("strategyqa", flipped).base_key() == read_nat_record("strategyqa", NAT_RECORD).base_key()


@pytest.mark.parametrize("first", ["user", "system"])
def test_a_nat_record_that_holds_its_prompt_is_refused_with_the_remedy(first: str) -> None:
    turns = [{"role": first, "content": "How many?"}, *NAT_RECORD["conversations"]]
    with pytest.raises(RolloutFormatError, match="leave the first prompt out"):
        read_nat_record("strategyqa", {**NAT_RECORD, "conversations": turns})


def test_reasoning_in_a_nat_turn_is_taken_apart_as_in_our_own_format() -> None:
    turn = {"role": "assistant", "content": "<think>\nhm\n</think>\n\nAction: finish[Yes]"}
    nat = read_nat_record("t", {"id": "q", "conversations": [turn]})
    assert nat.turns == ({"role": "assistant", "content": "Action: finish[Yes]", "reasoning": "hm"},)
    assert nat.turns == read_negtraj_record("t", {"question_id": "q", "messages": [turn]}).turns


def test_think_tags_of_others_in_a_nat_file_are_their_text() -> None:
    turns = [{"role": "assistant", "content": "a"}, {"role": "user", "content": "<think>b</think>c"}]
    assert read_nat_record("t", {"id": "q", "conversations": turns}).turns[1]["content"] == "<think>b</think>c"


def records(key: str, value: object) -> list[Rollout]:
    """A record of each format with one value changed."""
    nat_key = {"question_id": "id", "gold": "gt"}.get(key, key)
    nat: dict[str, object] = {"id": "q", "conversations": [], "info": {}}
    if key in ("question_id", "source"):
        nat[nat_key] = value
    else:
        nat["info"] = {nat_key: value}
    return [read_negtraj_record("t", {"question_id": "q", "messages": [], key: value}), read_nat_record("t", nat)]


@pytest.mark.parametrize(
    ("value", "reward"), [(1, True), (1.0, True), (0, False), (0.0, False), (-0.0, False), (True, True), (None, None)], ids=repr
)
def test_a_reward_of_one_or_zero_is_a_success_or_failure(value: object, reward: bool | None) -> None:
    assert [rollout.reward for rollout in records("reward", value)] == [reward, reward]


@pytest.mark.parametrize("value", [0.7, -1, 2, "1", "true", [], {}], ids=repr)
def test_another_reward_is_refused_with_the_remedy(value: object) -> None:
    with pytest.raises(RolloutFormatError, match="a threshold of yours"):
        records("reward", value)


@pytest.mark.parametrize("key", ["question_id", "source"])
def test_an_integer_id_is_its_digits(key: str) -> None:
    assert [getattr(rollout, key) for rollout in records(key, 17)] == ["17", "17"]


@pytest.mark.parametrize(
    ("value", "pred"),
    [(True, "true"), (12, "12"), ("12", "12"), (1.5, "1.5"), (["a"], '["a"]'), ({"b": 1, "a": 2}, '{"a":2,"b":1}'), ("", "")],
    ids=repr,
)
def test_an_answer_is_text_or_the_json_text_of_what_it_is(value: object, pred: str) -> None:
    assert [rollout.pred for rollout in records("pred", value)] == [pred, pred]


SECRET = "s3cr3t-value"


@pytest.mark.parametrize(
    "record",
    [
        {"question_id": [SECRET]},
        {"reward": SECRET},
        {"tools": SECRET},
        {"tokenizer": [SECRET]},
        {"session": {"a": SECRET}},
        {"messages": SECRET},
        {"messages": [SECRET]},
        {"messages": [{"role": SECRET, "content": ""}]},
        {"messages": [{"role": "assistant", "content": [SECRET]}]},
        {"messages": [{"role": "assistant", "content": "", "loss": SECRET}]},
        {"messages": [{"role": "user", "content": "", "loss": 17.25}]},
        {"messages": [{"role": "assistant", "content": "", "reasoning": SECRET, "reasoning_content": "x"}]},
        {"messages": [{"role": "assistant", "content": f"<think>{SECRET}</think>", "ranges": [{}]}]},
        {"messages": [{"role": "assistant", "content": "", "tool_calls": [{"name": "f", "arguments": SECRET}]}]},
        {"messages": [{"role": "assistant", "content": "", "tool_calls": [{"name": "f", "arguments": f'["{SECRET}"]'}]}]},
        {"messages": [{"role": "assistant", "content": "", "tool_calls": [{"function": {}, "type": SECRET}]}]},
        {"messages": [{"role": "assistant", "content": "", "token_ids": [SECRET]}]},
        {"messages": [{"role": "assistant", "content": "", "ranges": [{"field": SECRET}]}]},
        {"messages": [{"role": "assistant", "content": ""}, {"role": "user", "content": "", "reasoning": SECRET}]},
        {"x" * 200: 1, "y": SECRET},
    ],
)
@pytest.mark.parametrize("name", ["negtraj", "nat"])
def test_no_refusal_quotes_a_value(record: dict[str, object], name: str) -> None:
    nat_keys = {"question_id": "id", "messages": "conversations"}
    if name == "nat":
        record = {nat_keys.get(key, key): value for key, value in record.items()} | {"info": {"reward": record.get("reward")}}
    base = {"negtraj": {"question_id": "q", "messages": []}, "nat": {"id": "q", "conversations": []}}[name]
    reason = refusal_of(name, {**base, **record})
    assert reason or name == "nat"  # which reads fewer keys
    assert not any(part in reason for part in (SECRET, "17.25", "x" * 60))


def refusal_of(name: str, record: dict[str, Any]) -> str:
    """Why a format refuses a record; empty where it does not."""
    try:
        FORMATS[name].read("t", record)
    except RolloutFormatError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"items": []}, "has conversations and items, and they differ"),
        ({"reward": True}, "reward stands beside info"),
        ({"conversations": [{"from": "gpt", "value": "a", "role": "user", "content": "b"}]}, "has from and role"),
        ({"conversations": [{"role": "assistant", "value": "a", "content": "b"}]}, "has value and content"),
        ({"conversations": [{"role": "assistant", "content": "b", "loss": 2}]}, "expected true, false, 1 or 0"),
    ],
    ids=["two conversations", "a stray reward", "two speakers", "two contents", "a loss of two"],
)
def test_a_nat_record_that_says_two_things_is_refused(change: dict[str, object], message: str) -> None:
    record = {name: value for name, value in NAT_RECORD.items() if name != "info"} if "reward" in change else NAT_RECORD
    with pytest.raises(RolloutFormatError, match=message):
        read_nat_record("strategyqa", {**record, **change})


def test_a_nat_turn_may_write_its_loss_as_a_number() -> None:
    turns = [{"role": "assistant", "content": "a", "loss": 0}, {"role": "assistant", "content": "b", "loss": 1.0}]
    read = read_nat_record("t", {"id": "q", "conversations": turns}).turns
    assert [turn.get("loss") for turn in read] == [False, None]
