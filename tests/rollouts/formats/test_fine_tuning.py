"""Formats of fine-tuning and evaluation data: pairs, labels, calls as turns, events, dumps."""

import json
from typing import Any

import pytest

from negtraj_dagster.errors import RolloutFormatError
from negtraj_dagster.rollouts.formats import FORMATS
from negtraj_dagster.schema import Rollout
from tests.rollouts.formats.test_sessions import trained
from tests.support.documents import read_document


def read(name: str, value: object) -> list[Rollout]:
    reading = read_document(FORMATS[name], "t", json.dumps(value).encode(), "file")
    assert all(isinstance(each, Rollout) for each in reading), reading
    return [each for each in reading if isinstance(each, Rollout)]


def fault(name: str, value: object) -> str:
    (error,) = read_document(FORMATS[name], "t", json.dumps(value).encode(), "file")
    assert isinstance(error, RolloutFormatError)
    return str(error)


def says(speaker: str, value: str, **more: Any) -> dict[str, Any]:
    return {"from": speaker, "value": value, **more}


ASKED = says("human", "q")


def test_an_instruction_that_was_acknowledged_is_prompt_and_an_actor_without_loss_context() -> None:
    turns = [says("human", "Rules.", loss=None), says("gpt", "Ok.", loss=False), ASKED, says("gpt", "a", loss=True)]
    (rollout,) = read("agentinstruct", {"id": "w_1", "conversations": turns, "reward": 0.5})
    assert [turn["content"] for turn in rollout.prompt] == ["Rules.", "Ok.", "q"]
    assert (trained(rollout), rollout.question_id, rollout.reward, rollout.score) == (["a"], "w_1", None, 0.5)
    assert all("loss" not in turn for turn in rollout.prompt)


@pytest.mark.parametrize("name", ["agentinstruct", "llamafactory"])
def test_a_pair_is_a_success_and_a_failure_of_one_prompt(name: str) -> None:
    key = "prompt" if name == "agentinstruct" else "conversations"
    pair = {"id": "i", key: [ASKED], "chosen": [says("gpt", "good")], "rejected": [says("gpt", "bad")]}
    chosen, rejected = read(name, pair)
    assert (trained(chosen), trained(rejected)) == (["good"], ["bad"])
    assert (chosen.reward, rejected.reward) == (True, False)
    assert chosen.prompt == rejected.prompt == ({"role": "user", "content": "q"},)


def test_a_bad_half_of_a_pair_does_not_take_the_good_one_with_it() -> None:
    pair = {"conversations": [ASKED], "chosen": says("gpt", "good"), "rejected": says("who", "bad")}
    good, bad = FORMATS["llamafactory"].read("t", pair)
    assert isinstance(good, Rollout)
    assert isinstance(bad, RolloutFormatError)


def test_calls_that_are_turns_join_the_answer_they_belong_to() -> None:
    call, other = (json.dumps({"name": "f", "arguments": {"a": number}}) for number in (1, 2))
    turns = [ASKED, says("gpt", "I look."), says("function_call", call), says("function_call", other), says("observation", "x")]
    (rollout,) = read("llamafactory", {"conversations": [*turns, says("gpt", "a")], "tools": "[]", "system": "s"})
    assert [turn["role"] for turn in rollout.prompt] == ["system", "user"]
    assert rollout.turns[0] == {
        "role": "assistant",
        "content": "I look.",
        "tool_calls": [{"name": "f", "arguments": '{"a": 1}'}, {"name": "f", "arguments": '{"a": 2}'}],
    }
    assert [turn["role"] for turn in rollout.turns] == ["assistant", "tool", "assistant"]


def test_weights_labels_and_rejected_answers_are_kept() -> None:
    messages = [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": [{"type": "text", "value": "a"}], "loss_weight": 0.0},
        {"role": "user", "content": "r"},
        {"role": "assistant", "content": "b", "loss_scale": 2.0},
    ]
    (rollout,) = read("llamafactory", {"messages": messages, "label": False})
    assert [turn.get("loss") for turn in rollout.turns if turn["role"] == "assistant"] == [False, 2.0]
    assert rollout.reward is False
    good, bad = read("llamafactory", {"messages": messages, "rejected_response": "c"})
    assert (good.turns[-1]["content"], bad.turns[-1]["content"]) == ("b", "c")
    assert (good.reward, bad.reward) == (True, False)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"conversations": [ASKED, says("gpt", "a")], "images": ["a.png"]}, "unsupported"),
        ({"messages": [says("human", "<image>What?"), says("gpt", "a")]}, "unsupported"),
        ({"messages": [{"role": "assistant", "content": "", "tool_calls": [{}]}]}, "such messages are `openai`'s"),
        ({"conversations": [ASKED, says("function_call", "f(1)")]}, "expected JSON text of a call"),
        ({"conversations": [ASKED, says("narrator", "x")]}, "expected one of human, user"),
    ],
    ids=["images", "mark", "calls inside", "no JSON", "speaker"],
)
def test_what_cannot_be_trained_is_refused(record: dict[str, Any], message: str) -> None:
    assert message in fault("llamafactory", record)


def test_a_mask_of_false_is_context_and_the_target_the_outcome() -> None:
    trajectory = [
        {"role": "system", "system_prompt": "s", "text": None, "mask": False},
        {"role": "user", "text": "q", "mask": False},
        {"role": "ai", "text": "demo", "mask": False},
        {"role": "user", "text": "r", "mask": False},
        {"role": "ai", "text": "a", "mask": True},
    ]
    (rollout,) = read(
        "nebius", {"instance_id": "i", "model_name": "m", "target": False, "trajectory": trajectory, "eval_logs": "x"}
    )
    assert (trained(rollout), rollout.reward, rollout.group, rollout.teacher) == (["a"], False, "i", "m")
    assert json.loads(rollout.extra or "") == {"eval_logs": "x"}


def test_actions_are_calls_and_observations_their_results() -> None:
    content = [
        {"class_": "text_observation", "source": "user", "content": "q"},
        {"class_": "code_action", "language": "bash", "content": "ls", "description": "Look."},
        {"class_": "text_observation", "source": "environment", "content": "a.py"},
        {"class_": "api_action", "function": "f", "kwargs": {"a": 1}, "tool_call_id": "c"},
        {"class_": "text_observation", "source": "environment", "content": "x", "tool_call_id": "c"},
        {"class_": "message_action", "content": "Done.", "description": None},
    ]
    (rollout,) = read("adp", {"id": "os_1", "content": content})
    assert [turn["role"] for turn in rollout.turns] == ["assistant", "tool", "assistant", "tool", "assistant"]
    assert rollout.turns[0]["tool_calls"] == [{"name": "bash", "arguments": '{"code": "ls"}'}]
    assert rollout.turns[2]["tool_calls"] == [{"name": "f", "arguments": '{"a": 1}', "id": "c"}]
    assert "pages and images are unsupported" in fault("adp", {"content": [{"class_": "web_observation", "html": "x"}]})


def test_events_are_an_episode_with_the_users_verdict_and_a_bad_one_leaves_the_others() -> None:
    written = [{"id": "c", "type": "function", "function": {"name": "execute_bash", "arguments": '{"command": "ls"}'}}]
    response = {"id": "r", "choices": [{"message": {"content": "Look.", "tool_calls": written}}]}
    metadata = {"function_name": "execute_bash", "tool_call_id": "c", "model_response": response}
    events = [
        {"source": "environment", "action": "initialize"},
        {"source": "user", "action": "message", "args": {"content": "q"}},
        {"source": "agent", "action": "run", "args": {"command": "ls", "hidden": False}, "tool_call_metadata": metadata},
        {"source": "agent", "observation": "run", "content": "a.py", "tool_call_metadata": metadata},
        {"source": "agent", "observation": "agent_state_changed", "content": ""},
        {"source": "agent", "action": "message", "args": {"content": "Done."}},
    ]
    good = {"id": "e", "feedback": "negative", "trajectory": events}
    rollout, error = read_document(
        FORMATS["openhands"], "t", json.dumps([good, {"feedback": "positive", "trajectory": events[:2]}]).encode(), "file"
    )
    assert isinstance(rollout, Rollout)
    assert rollout.reward is False
    assert rollout.turns[0] == {
        "role": "assistant",
        "content": "Look.",
        "tool_calls": [{"name": "execute_bash", "arguments": '{"command": "ls"}', "id": "c"}],
    }
    assert str(error).startswith("record 1: trajectory: none of 1 turns is the agent's")
    (alone,) = read("openhands", events)
    assert (alone.turns, alone.reward) == (rollout.turns, None)


def test_both_spellings_of_a_react_episode_are_the_same_turns() -> None:
    said = [
        "Thought: look.\nAction: search[x]",
        "Observation: y\nz",
        "Thought: so.\nAction: finish[w]",
        "Observation: Episode finished",
    ]
    text = "### Instruction:\nq?\n\n### Response:\n" + "\n".join(said) + "\n"
    messages = [{"role": "user", "content": "q?"}]
    messages += [{"role": "user" if part.startswith("Obs") else "assistant", "content": part} for part in said]
    outcome = {"reward": False, "em": False, "f1": 0.4, "gt": "w w", "pred": "w"}
    one, other = read("fireact", {"7": {**outcome, "traj": text}, "8": {**outcome, "traj": messages}})
    assert one.turns == other.turns
    assert one.prompt == other.prompt == ({"role": "user", "content": "q?"},)
    assert (one.question_id, one.score, one.reward, one.pred, one.gold) == ("7", 0.4, False, "w", "w w")


def test_a_call_whose_words_are_not_recorded_is_not_trained_and_calls_of_one_answer_are_one_turn() -> None:
    calls = [{"id": name, "type": "function", "function": {"name": "f", "arguments": f'{{"a": "{name}"}}'}} for name in "ab"]
    response = {"id": "r", "choices": [{"message": {"content": None, "tool_calls": calls}}]}
    events: list[dict[str, Any]] = [{"source": "user", "action": "message", "args": {"content": "q"}}]
    for name in "ab":
        metadata = {"function_name": "f", "tool_call_id": name, "model_response": response}
        events.append({"source": "agent", "action": "f", "args": {}, "tool_call_metadata": metadata})
        events.append({"source": "agent", "observation": "f", "content": name, "tool_call_metadata": metadata})
    named = {"function_name": "g", "tool_call_id": "c"}
    events.append({"source": "agent", "action": "g", "args": {"empty": ""}, "tool_call_metadata": named})
    (rollout,) = read("openhands", events)
    assert [turn["role"] for turn in rollout.turns] == ["assistant", "tool", "tool", "assistant"]
    assert [call["arguments"] for call in rollout.turns[0]["tool_calls"]] == ['{"a": "a"}', '{"a": "b"}']
    assert (rollout.turns[3]["loss"], rollout.turns[3]["tool_calls"][0]["arguments"]) == (False, '{"empty": ""}')


def test_earlier_answers_of_a_pair_are_context_and_each_side_trains_its_own() -> None:
    history = [ASKED, says("gpt", "earlier"), says("human", "r")]
    for record in (
        {"conversations": history, "chosen": [says("gpt", "good")], "rejected": [says("gpt", "bad")]},
        {"conversations": [*history, says("gpt", "good")], "rejected_response": "bad", "chosen": None},
    ):
        good, bad = read("llamafactory", record)
        assert (trained(good), trained(bad)) == (["good"], ["bad"])
        assert [turn["content"] for turn in good.prompt] == ["q", "earlier", "r"]
    chosen = [says("gpt", "one"), says("human", "s"), says("gpt", "two")]
    good, _ = read("llamafactory", {"conversations": [ASKED], "chosen": chosen, "rejected": [says("gpt", "bad")]})
    assert trained(good) == ["one", "two"]
    empty, bad_side = FORMATS["llamafactory"].read(
        "t", {"conversations": history, "chosen": [], "rejected": [says("gpt", "bad")]}
    )
    assert isinstance(empty, RolloutFormatError)
    assert isinstance(bad_side, Rollout)


def test_weights_are_one_thing_in_every_spelling() -> None:
    for name in ("llamafactory", "openai"):
        for key in ("loss_scale", "loss_weight"):
            messages = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a", "loss": True, key: 2.0}]
            (rollout,) = read(name, {"messages": messages})
            assert rollout.turns[0]["loss"] == 2.0
    call = json.dumps({"name": "f", "arguments": {}})
    turns = [ASKED, says("gpt", "said", loss=False), says("function_call", call)]
    (rollout,) = read("llamafactory", {"conversations": turns})
    assert [turn.get("loss", True) for turn in rollout.turns] == [False, True]


def test_a_record_that_no_reader_foresaw_is_refused_and_stops_nothing() -> None:
    event = {"source": "agent", "action": "run", "args": {}, "tool_call_metadata": "none"}
    assert "tool_call_metadata: found str" in fault("openhands", [event])
    assert "messages" in fault("llamafactory", {"messages": [{"role": "user", "content": "q"}], "rejected_response": "x"})
    good = {"reward": True, "f1": 1.0, "traj": "### Instruction:\nq\n\n### Response:\nAction: finish[a]"}
    rollout, error = read_document(FORMATS["fireact"], "t", json.dumps({"1": good, "2": {"reward": True}}).encode(), "file")
    assert isinstance(rollout, Rollout)
    assert "2: key 'traj' is missing" in str(error)


def test_parts_of_a_message_are_text_reasoning_and_calls() -> None:
    call = json.dumps({"name": "look", "arguments": {"at": "x"}})
    content = [{"type": "reasoning", "value": "Hm."}, {"type": "tool_call", "value": call}, {"type": "text", "value": "Look."}]
    messages = [
        {"role": "user", "content": [{"type": "text", "value": "q"}], "loss_weight": 0.0},
        {"role": "assistant", "content": content, "loss_weight": 1.0},
    ]
    (rollout,) = read("llamafactory", {"messages": messages})
    (turn,) = rollout.turns
    assert (turn["content"], turn["reasoning"]) == ("Look.", "Hm.")
    assert turn["tool_calls"] == [{"name": "look", "arguments": '{"at": "x"}'}]


def test_a_pair_of_whole_conversations_is_two_rollouts() -> None:
    def turns(answer: str) -> list[dict[str, str]]:
        return [{"role": "user", "content": "q"}, {"role": "assistant", "content": answer}]

    rollouts = read("llamafactory", {"chosen_messages": turns("good"), "rejected_messages": turns("bad")})
    assert [(rollout.reward, rollout.turns[0]["content"]) for rollout in rollouts] == [(True, "good"), (False, "bad")]


@pytest.mark.parametrize("key", ["images", "videos", "audios"])
def test_media_beside_messages_are_refused_by_every_format_of_messages(key: str) -> None:
    messages = [{"role": "user", "content": "<image>q"}, {"role": "assistant", "content": "a"}]
    for name in ("openai", "llamafactory"):
        assert (
            fault(name, {"messages": messages, key: ["a.jpg"]})
            == f"{key}: found values, expected none; images, sound and video are unsupported"
        )


def test_an_observation_whose_source_is_the_agent_is_the_agents() -> None:
    observed = {"class_": "text_observation", "content": "Go.", "source": "user"}
    said = {"class_": "text_observation", "content": "Ready.", "source": "agent"}
    (rollout,) = read("adp", {"id": "a", "content": [observed, said]})
    assert ([turn["content"] for turn in rollout.prompt], trained(rollout)) == (["Go."], ["Ready."])


def test_keys_of_calls_and_ids_of_results_that_other_tools_write_are_kept() -> None:
    call = {"id": "c", "name": "look", "arguments": {}, "requestor": "assistant"}
    messages = [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "", "tool_calls": [{"index": 1, "id": "c", "function": {"name": "look"}}]},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "x", "tool_call_ids": ["c"]},
        {"role": "assistant", "content": [{"type": "text", "content": "Done."}]},
    ]
    (rollout,) = read("openai", {"messages": messages})
    assert rollout.turns[2]["tool_call_id"] == "c"
    assert rollout.turns[-1]["content"] == "Done."
    assert json.loads(rollout.extra or "")["messages"]["2"]["tool_calls"] == {"0": {"requestor": "assistant"}}


def test_parts_of_what_was_thought_are_reasoning_and_encrypted_ones_are_not() -> None:
    def answer(**part: object) -> dict[str, object]:
        return {"role": "assistant", "content": [{"type": "reasoning", **part}, {"type": "text", "text": "a"}]}

    asked = {"role": "user", "content": "q"}
    parts = (
        {"reasoning": "Hm."},
        {"reasoning": "gAAA", "redacted": True},
        {"reasoning": "gAAA", "redacted": True, "summary": "S"},
    )
    turns = [read("openai", {"messages": [asked, answer(**part)]})[0].turns[0] for part in parts]
    assert [(turn["content"], turn.get("reasoning")) for turn in turns] == [("a", "Hm."), ("a", None), ("a", "S")]
