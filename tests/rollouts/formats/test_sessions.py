"""Agents' sessions: branches, side chains and compactions are rollouts of their own, and each answer is trained once."""

import json
from collections.abc import Sequence
from typing import Any

import pytest

from negtraj_dagster.errors import RolloutFormatError
from negtraj_dagster.rollouts.formats import FORMATS
from negtraj_dagster.schema import Rollout, Turn
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
    answer = {"id": more.pop("answer", f"msg-{uuid}"), "model": more.pop("model", "claude")} if role == "assistant" else {}
    message = {"role": role, "content": content, **answer}
    return {"type": role, "uuid": uuid, "parentUuid": parent, "sessionId": "s", "message": message, **more}


def text(*texts: str) -> list[dict[str, str]]:
    return [{"type": "text", "text": each} for each in texts]


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


def reasoning(summary: str = "", content: str = "") -> dict[str, object]:
    return item(
        "reasoning",
        summary=[{"type": "summary_text", "text": summary}] if summary else [],
        content=[{"type": "reasoning_text", "text": content}] if content else None,
        encrypted_content=None if content else "gAAAA",
    )


def said(role: str, words: str) -> dict[str, object]:
    return item("message", role=role, content=[{"type": "output_text", "text": words}])


def test_what_of_a_codex_session_is_left_out_is_counted_and_summaries_are_kept_beside_it() -> None:
    search = item("web_search_call", status="completed", action={"type": "search", "query": "x"})
    (rollout,) = read("codex", *CODEX[:3], reasoning("I plan."), search, reasoning(), said("assistant", "Done."))
    assert rollout.turns == ({"role": "assistant", "content": "Done."},)
    extra = json.loads(rollout.extra or "")
    assert extra["left_out"] == {"reasoning": 2, "web_search_call": 1}
    assert extra["reasoning_summaries"] == ["I plan."]


def test_reasoning_in_words_is_of_the_turn_that_follows_it() -> None:
    call = item("function_call", name="shell", arguments="{}", call_id="c")
    lines = (reasoning(content="First."), said("assistant", "I look."), reasoning(content="Second."), call)
    (rollout,) = read("codex", *CODEX[:3], *lines)
    assert [turn["reasoning"] for turn in rollout.turns] == ["First.", "Second."]
    assert ["tool_calls" in turn for turn in rollout.turns] == [False, True]


def test_a_codex_session_is_named_by_either_id() -> None:
    (rollout,) = read("codex", {"type": "session_meta", "payload": {"session_id": "s"}}, *CODEX[1:])
    assert (rollout.session, rollout.group) == ("s", "s")


def test_what_follows_an_item_that_cannot_be_read_is_left_out_up_to_a_compaction() -> None:
    image = item("function_call_output", call_id="c1", output=[{"type": "input_image", "image_url": "x"}])
    history = {"type": "compacted", "payload": {"replacement_history": [said("user", "So far.")["payload"]]}}
    lines = (*CODEX[:6], image, said("assistant", "A cat."), history, said("assistant", "Goes on."))
    raw = "\n".join(json.dumps(line) for line in lines).encode()
    first, second, fault = read_document(FORMATS["codex"], "t", raw, "file")
    assert isinstance(first, Rollout)
    assert isinstance(second, Rollout)
    assert (trained(first), trained(second)) == (["I look."], ["Goes on."])
    assert str(fault).startswith("line 7.payload")


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


HEADER = {"type": "session", "version": 3, "id": "s"}


def entry(name: str, parent: str | None, kind: str, **more: object) -> dict[str, object]:
    return {"type": kind, "id": name, "parentId": parent, **more}


def pi(name: str, parent: str | None, role: str, content: object = None, **more: object) -> dict[str, object]:
    return entry(name, parent, "message", message={"role": role, "content": content, **more})


def texts(turns: Sequence[Turn]) -> list[str]:
    return [turn["content"] for turn in turns]


def test_what_pi_sends_as_the_users_is_part_of_the_conversation() -> None:
    (rollout,) = read(
        "session_trace",
        HEADER,
        entry("0", None, "model_change", modelId="glm"),
        entry("1", "0", "custom_message", content="The goal.", display=False),
        pi("2", "1", "assistant", text("One.")),
        pi("3", "2", "bashExecution", command="ls", output="a.py", exitCode=2),
        pi("4", "3", "bashExecution", command="env", output="", exitCode=0),
        pi("5", "4", "bashExecution", command="secret", output="x", excludeFromContext=True),
        entry("6", "5", "custom_message", content=text("More.")),
        entry("7", "6", "branch_summary", summary="Another way failed.", fromId="9"),
        entry("8", "7", "model_change", modelId="opus"),
        pi("9", "8", "assistant", text("Two.")),
    )
    assert texts(rollout.prompt) == ["The goal."]
    assert texts(rollout.turns) == [
        "One.",
        "Ran `ls`\n```\na.py\n```\n\nCommand exited with code 2",
        "Ran `env`\n(no output)",
        "More.",
        "Another way failed.",
        "Two.",
    ]
    assert (trained(rollout), rollout.teacher) == (["One.", "Two."], "opus")
    assert json.loads(rollout.extra or "")["left_out"] == {"excludeFromContext": 1}


def test_the_prompt_after_a_compaction_is_its_summary_and_what_was_kept() -> None:
    lines = [
        pi("1", None, "user", "q"),
        pi("2", "1", "assistant", text("One.")),
        pi("3", "2", "user", "r"),
        pi("4", "3", "assistant", text("Two.")),
        entry("5", "4", "compaction", summary="So far.", firstKeptEntryId="3"),
        pi("6", "5", "user", "s"),
        pi("7", "6", "assistant", text("Three.")),
    ]
    before, after = read("session_trace", HEADER, *lines)
    assert (texts(before.turns), trained(before)) == (["One.", "r", "Two."], ["One.", "Two."])
    assert texts([*after.prompt, *after.turns]) == ["So far.", "r", "Two.", "s", "Three."]
    assert (trained(after), after.parent) == (["Three."], "s/4")
    without_kept = [{key: value for key, value in line.items() if key != "firstKeptEntryId"} for line in lines]
    assert texts(read("session_trace", HEADER, *without_kept)[1].prompt) == ["So far.", "s"]


def test_an_answer_that_was_broken_off_is_neither_trained_nor_context() -> None:
    lines = [
        pi("1", None, "user", "q"),
        pi("2", "1", "assistant", text("Par"), stopReason="aborted"),
        pi("3", "2", "user", "Go on."),
        pi("4", "3", "assistant", text("Whole."), stopReason="stop"),
    ]
    (rollout,) = read("session_trace", HEADER, *lines, lines[-1])
    assert texts([*rollout.prompt, *rollout.turns]) == ["q", "Go on.", "Whole."]
    assert json.loads(rollout.extra or "")["left_out"] == {"aborted": 1}


def test_a_message_that_cannot_be_read_ends_its_branch_and_the_session_is_read() -> None:
    image = entry("3", "2", "custom_message", content=[{"type": "image", "data": ""}])
    lines = [
        pi("1", None, "user", "q"),
        pi("2", "1", "assistant", text("One.")),
        image,
        pi("4", "3", "assistant", text("A cat.")),
        pi("5", "2", "user", "r"),
        pi("6", "5", "assistant", text("Two.")),
    ]
    raw = "\n".join(json.dumps(line) for line in (HEADER, *lines)).encode()
    fault, rollout = read_document(FORMATS["session_trace"], "t", raw, "file")
    assert str(fault).startswith("message 3: line 4")
    assert isinstance(rollout, Rollout)
    assert trained(rollout) == ["One.", "Two."]


@pytest.mark.parametrize("block", [{"type": "redacted_thinking", "data": "gAAAA"}, {"type": "thinking", "redacted": True}])
def test_encrypted_reasoning_is_left_out(block: dict[str, object]) -> None:
    hidden = {"thinking": "[Reasoning redacted]", **block}
    for blocks, reasoning in (([hidden], None), ([hidden, {"type": "thinking", "thinking": "Hm."}], "Hm.")):
        (rollout,) = read("session_trace", HEADER, pi("1", None, "user", "q"), pi("2", "1", "assistant", [*blocks, *text("a")]))
        assert rollout.turns[0].get("reasoning") == reasoning


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
