"""Agents' sessions: branches, side chains and compactions are rollouts of their own, and each answer is trained once."""

import json
from typing import Any

import pytest

from negtraj_dagster.errors import RolloutFormatError
from negtraj_dagster.rollouts.formats import FORMATS
from negtraj_dagster.schema import Rollout
from tests.support.documents import read_document


def read(name: str, *lines: object) -> list[Rollout]:
    raw = "\n".join(json.dumps(line) for line in lines).encode()
    reading = read_document(FORMATS[name], "t", raw, "file")
    assert all(isinstance(each, Rollout) for each in reading), reading
    return [each for each in reading if isinstance(each, Rollout)]


def faults(name: str, *lines: object) -> list[str]:
    raw = "\n".join(json.dumps(line) for line in lines).encode()
    return [str(each) for each in read_document(FORMATS[name], "t", raw, "file") if isinstance(each, RolloutFormatError)]


def trained(rollout: Rollout) -> list[str]:
    return [turn["content"] for turn in rollout.turns if turn["role"] == "assistant" and turn.get("loss", True)]


def claude(uuid: str, parent: str | None, role: str, content: object, **more: Any) -> dict[str, Any]:
    answer = {"id": more.pop("answer", f"msg-{uuid}"), "model": "claude"} if role == "assistant" else {}
    message = {"role": role, "content": content, **answer}
    return {"type": role, "uuid": uuid, "parentUuid": parent, "sessionId": "s", "message": message, **more}


def text(*texts: str) -> list[dict[str, str]]:
    return [{"type": "text", "text": each} for each in texts]


CLAUDE = (
    {"type": "summary", "summary": "…"},
    claude("1", None, "user", "Repair it."),
    claude("2", "1", "assistant", [{"type": "thinking", "thinking": "Look."}], answer="a"),
    claude("3", "2", "assistant", [{"type": "tool_use", "id": "c1", "name": "Bash", "input": {"command": "ls"}}], answer="a"),
    claude("4", "3", "user", [{"type": "tool_result", "tool_use_id": "c1", "content": text("a.py")}]),
    claude("5", "4", "assistant", text("Done.")),
)


def test_pieces_of_one_answer_are_one_turn_with_its_thought_and_call() -> None:
    (rollout,) = read("claude_code", *CLAUDE)
    assert rollout.prompt == ({"role": "user", "content": "Repair it."},)
    assert rollout.turns == (
        {
            "role": "assistant",
            "content": "",
            "reasoning": "Look.",
            "tool_calls": [{"name": "Bash", "arguments": '{"command": "ls"}', "id": "c1"}],
        },
        {"role": "tool", "content": "a.py", "tool_call_id": "c1"},
        {"role": "assistant", "content": "Done."},
    )
    assert (rollout.teacher, rollout.session, rollout.group, rollout.reward) == ("claude", "s", "s", None)


def test_a_rewound_session_a_side_chain_and_a_compaction_train_each_answer_once() -> None:
    retry = claude("6", "4", "assistant", text("Done otherwise."))
    side = (
        claude("7", None, "user", "Search.", isSidechain=True),
        claude("8", "7", "assistant", text("Found."), isSidechain=True),
    )
    boundary = {"type": "system", "subtype": "compact_boundary", "uuid": "9", "parentUuid": None, "logicalParentUuid": "6"}
    after = (
        claude("10", "9", "user", "Summary so far.", isCompactSummary=True),
        claude("11", "10", "assistant", text("Goes on.")),
    )
    first, second, agent, compacted = read("claude_code", *CLAUDE, retry, *side, boundary, *after)
    assert [trained(each) for each in (first, second, agent, compacted)] == [
        ["", "Done."],
        ["Done otherwise."],
        ["Found."],
        ["Goes on."],
    ]
    assert [turn.get("loss") for turn in second.turns] == [False, None, None]
    assert second.parent == "s/msg-5"
    assert compacted.prompt == ({"role": "user", "content": "Summary so far."},)
    assert compacted.parent is not None
    assert agent.prompt == ({"role": "user", "content": "Search."},)


def test_a_message_with_an_image_is_refused_with_what_stands_below_it() -> None:
    image = claude("6", "5", "user", [{"type": "image", "source": {}}])
    below = claude("7", "6", "assistant", text("A cat."))
    raw = (*CLAUDE, image, below)
    (fault,) = faults("claude_code", *raw)
    assert "images are unsupported" in fault


def item(kind: str, **payload: object) -> dict[str, object]:
    return {"timestamp": "t", "type": "response_item", "payload": {"type": kind, **payload}}


CODEX = (
    {"type": "session_meta", "payload": {"id": "s", "base_instructions": {"text": "You are Codex."}}},
    {"type": "turn_context", "payload": {"model": "gpt"}},
    item("message", role="user", content=[{"type": "input_text", "text": "Repair it."}]),
    item("reasoning", summary=[], encrypted_content="x"),
    item("message", role="assistant", content=[{"type": "output_text", "text": "I look."}]),
    item("function_call", name="shell", arguments='{"c":"ls"}', call_id="c1"),
    item("function_call_output", call_id="c1", output="a.py"),
    item("message", role="assistant", content=[{"type": "output_text", "text": "Done."}]),
    {"type": "event_msg", "payload": {"type": "token_count"}},
)


def test_a_codex_session_is_a_rollout_and_its_compaction_another() -> None:
    history = [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Repair it."}]}]
    compacted = {"type": "compacted", "payload": {"message": "", "replacement_history": history}}
    goes_on = item("message", role="assistant", content=[{"type": "output_text", "text": "Goes on."}])
    first, second = read("codex", *CODEX, compacted, goes_on)
    assert [turn["role"] for turn in first.prompt] == ["system", "user"]
    assert first.turns[0] == {
        "role": "assistant",
        "content": "I look.",
        "tool_calls": [{"name": "shell", "arguments": '{"c":"ls"}', "id": "c1"}],
    }
    assert (first.teacher, first.session, first.parent) == ("gpt", "s", None)
    assert (trained(second), second.parent) == (["Goes on."], "s")
    assert [turn["content"] for turn in second.prompt] == ["You are Codex.", "Repair it."]


def test_a_simple_session_trace_is_a_list_and_one_with_parents_a_tree() -> None:
    header = {"type": "session", "harness": "mine", "id": "s"}

    def message(role: str, content: object, **more: object) -> dict[str, object]:
        return {"type": "message", "message": {"role": role, "content": content}, **more}

    (plain,) = read("session_trace", header, message("user", "q"), message("assistant", "a"))
    assert (plain.source, plain.prompt, trained(plain)) == ("mine", ({"role": "user", "content": "q"},), ["a"])
    call = [{"type": "toolCall", "id": "c", "name": "read", "arguments": {"p": 1}}]
    tree = (
        message("user", "q", id="1", parentId=None),
        message("assistant", call, id="2", parentId="1"),
        {
            "type": "message",
            "id": "3",
            "parentId": "2",
            "message": {"role": "toolResult", "toolCallId": "c", "content": text("x")},
        },
        message("assistant", text("one"), id="4", parentId="3"),
        message("assistant", text("other"), id="5", parentId="3"),
        {"type": "compaction", "id": "6", "parentId": "5", "summary": "so far"},
        message("assistant", text("on"), id="7", parentId="6"),
    )
    first, branch, after = read("session_trace", {**header, "version": 3}, *tree)
    assert [trained(each) for each in (first, branch, after)] == [["", "one"], ["other"], ["on"]]
    assert (branch.parent, after.prompt) == ("s/4", ({"role": "user", "content": "so far"},))


@pytest.mark.parametrize("name", ["claude_code", "codex", "session_trace"])
def test_another_file_is_no_session(name: str) -> None:
    assert len(faults(name, {"question_id": "q", "messages": []})) == 1


def test_a_line_that_was_cut_is_named_and_the_session_is_read() -> None:
    raw = b"\n".join([*(json.dumps(line).encode() for line in CODEX), b'{"type": "resp'])
    rollout, fault = read_document(FORMATS["codex"], "t", raw, "file")
    assert isinstance(rollout, Rollout)
    assert str(fault).startswith("line 10: not JSON")


def test_lines_that_lead_in_a_circle_come_to_an_end() -> None:
    header = {"type": "session", "id": "s"}
    circle = [{"type": "label", "id": "1", "parentId": "2"}, {"type": "label", "id": "2", "parentId": "1"}]
    user = {"type": "message", "id": "3", "parentId": "2", "message": {"role": "user", "content": "q"}}
    answer = {"type": "message", "id": "4", "parentId": "3", "message": {"role": "assistant", "content": "a"}}
    (rollout,) = read("session_trace", header, *circle, user, answer)
    assert trained(rollout) == ["a"]
