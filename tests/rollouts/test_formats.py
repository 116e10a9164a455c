import pytest

from negtraj_dagster.errors import RolloutFormatError
from negtraj_dagster.rollouts.formats import FORMATS

NAT_RECORD = {
    "conversations": [
        {"role": "assistant", "content": "Thought: a\n\nAction: finish[Yes]", "loss": True},
        {"role": "user", "content": "Observation: Episode finished", "loss": False},
    ],
    "id": "b8",
    "info": {"reward": True, "gt": True, "pred": "Yes", "acc": True},
    "source": "0.5",
}


def test_a_nat_record_keeps_turns_outcome_and_temperature() -> None:
    rollout = FORMATS["nat"]("strategyqa", NAT_RECORD)
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
    assert FORMATS["nat"]("strategyqa", legacy) == FORMATS["nat"]("strategyqa", NAT_RECORD)


def test_an_unfinished_nat_record_without_turns_is_kept_for_the_filters() -> None:
    rollout = FORMATS["nat"]("strategyqa", {"conversations": [], "id": "b8", "info": {"reward": False, "gt": True}})
    assert (rollout.turns, rollout.reward, rollout.pred) == ((), False, None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"id": 7}, "id = '7': found int, expected str"),
        ({"conversations": "x"}, "conversations = 'x': found str, expected list"),
        ({"conversations": [{"role": "robot", "content": ""}]}, r"conversations\[0\].role = 'robot'; expected one of"),
        ({"conversations": [{"role": "user", "content": "x", "loss": True}]}, "only the agent's turns are trained"),
        ({"conversations": [{"role": "user", "content": None}]}, "content = 'None': found NoneType, expected str"),
        ({"info": {"reward": 1}}, "reward = '1': found int, expected bool"),
    ],
    ids=["id", "conversations", "role", "loss", "content", "reward"],
)
def test_a_malformed_nat_record_says_what_was_expected(change: dict[str, object], message: str) -> None:
    with pytest.raises(RolloutFormatError, match=message):
        FORMATS["nat"]("strategyqa", {**NAT_RECORD, **change})


def test_an_evaluation_episode_is_refused_at_the_door() -> None:
    record = {"question_id": "q", "messages": [], "is_evaluation": True}
    with pytest.raises(RolloutFormatError, match="must not enter training"):
        FORMATS["negtraj"]("wordtraps", record)


def test_an_unknown_key_in_our_own_format_is_refused() -> None:
    with pytest.raises(RolloutFormatError, match=r"unknown keys \['rewrad'\]"):
        FORMATS["negtraj"]("wordtraps", {"question_id": "q", "messages": [], "rewrad": True})


def test_a_record_that_holds_its_prompt_is_refused_with_the_remedy() -> None:
    messages = [{"role": "user", "content": "How many?"}, {"role": "assistant", "content": "Action: finish[1]"}]
    with pytest.raises(RolloutFormatError, match="leave the first prompt out"):
        FORMATS["negtraj"]("wordtraps", {"question_id": "q", "messages": messages})


def test_the_outcome_is_no_part_of_a_rollouts_identity() -> None:
    flipped = {**NAT_RECORD, "info": {"reward": False, "gt": False, "pred": "No"}}
    assert FORMATS["nat"]("strategyqa", flipped).base_key() == FORMATS["nat"]("strategyqa", NAT_RECORD).base_key()
