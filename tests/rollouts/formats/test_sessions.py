"""Agents' sessions: branches, side chains and compactions are rollouts of their own, and each answer is trained once."""

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
    assert (second.parent, agent.parent, compacted.parent) == ("s/msg-5", "s/msg-6", "s/msg-6")
    assert compacted.prompt == ({"role": "user", "content": "Summary so far."},)
    assert agent.prompt == ({"role": "user", "content": "Search."},)


def test_a_message_with_an_image_is_refused_with_what_stands_below_it() -> None:
    image = claude("6", "5", "user", [{"type": "image", "source": {}}])
    below = claude("7", "6", "assistant", text("A cat."))
    raw = (*CLAUDE, image, below)
    (fault,) = faults("claude_code", *raw)
    assert "images are unsupported" in fault


def bash(*ids: str) -> list[dict[str, Any]]:
    return [{"type": "tool_use", "id": each, "name": "Bash", "input": {}} for each in ids]


def result(call_id: str, content: object = None) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": call_id, "content": content or f"result {call_id}"}


def roles(rollout: Rollout) -> list[str]:
    """Turns in short: what tools answered by the call's id, all others by their text."""
    return [turn.get("tool_call_id") or turn["content"] for turn in rollout.turns]


@pytest.mark.parametrize("above_b", ["b", "c", "d"], ids=["its own call", "the first call", "the first result"])
@pytest.mark.parametrize("last", ["d", "e"], ids=["below the first result", "below the last"])
def test_parallel_calls_are_one_turn_with_all_their_results(above_b: str, last: str) -> None:
    lines = (
        claude("1", None, "user", "Do both."),
        claude("a", "1", "assistant", text("Both."), answer="m"),
        claude("c", "a", "assistant", bash("A"), answer="m"),
        claude("d", "c", "user", [result("A")]),
        claude("b", "d", "assistant", bash("B"), answer="m"),
        claude("e", above_b, "user", [result("B")]),
        claude("f", last, "assistant", text("Done.")),
    )
    (rollout,) = read("claude_code", *lines)
    assert roles(rollout) == ["Both.", "A", "B", "Done."]
    assert [call["id"] for call in rollout.turns[0]["tool_calls"]] == ["A", "B"]


def test_results_stand_in_the_calls_order_and_before_what_the_user_said_meanwhile() -> None:
    lines = (
        claude("1", None, "user", "Do both."),
        claude("2", "1", "assistant", bash("A", "B")),
        claude("3", "2", "user", "Hurry."),
        claude("4", "3", "user", [result("B"), *text("A hook says so.")]),
        claude("5", "4", "user", [result("A")]),
        claude("6", "5", "assistant", text("Done.")),
    )
    (rollout,) = read("claude_code", *lines)
    assert roles(rollout) == ["", "A", "B", "A hook says so.", "Hurry.", "Done."]


def test_a_call_that_was_answered_anew_is_a_branch_with_its_own_result() -> None:
    lines = (
        claude("1", None, "user", "Do both."),
        claude("2", "1", "assistant", bash("A", "B")),
        claude("3", "2", "user", [result("A"), result("B")]),
        claude("4", "3", "assistant", text("One.")),
        claude("5", "2", "user", [result("B", "another")]),
        claude("6", "5", "assistant", text("Other.")),
    )
    first, second = read("claude_code", *lines)
    assert [turn["content"] for turn in first.turns] == ["", "result A", "result B", "One."]
    assert [turn["content"] for turn in second.turns] == ["", "result A", "another", "Other."]
    assert (trained(first), trained(second)) == (["", "One."], ["Other."])


def test_a_result_that_cannot_be_read_ends_its_branch_and_its_call_stays() -> None:
    image = claude("3", "2", "user", [result("B", [{"type": "image", "source": {}}])])
    lines = (
        claude("1", None, "user", "Do both."),
        claude("2", "1", "assistant", bash("A", "B")),
        image,
        claude("4", "3", "user", [result("A")]),
        claude("5", "4", "assistant", text("Done.")),
    )
    raw = "\n".join(json.dumps(line) for line in lines).encode()
    fault, rollout = read_document(FORMATS["claude_code"], "t", raw, "file")
    assert "expected text" in str(fault)
    assert isinstance(rollout, Rollout)
    assert trained(rollout) == [""]


def test_a_line_that_is_written_again_counts_once() -> None:
    plain = read("claude_code", *CLAUDE)
    copied = [{**line, "uuid": f"{line['uuid']}'"} for line in CLAUDE[2:4]]  # the same output under new names
    assert read("claude_code", *CLAUDE, *CLAUDE) == plain
    assert read("claude_code", *CLAUDE[:4], *copied, *CLAUDE[4:]) == plain
    other = claude("1", None, "user", "Another text under the same uuid.")
    assert read("claude_code", *CLAUDE, other) == plain


def test_an_id_that_two_calls_share_is_answered_to_the_nearer_one() -> None:
    lines = (
        claude("1", None, "user", "Twice."),
        claude("2", "1", "assistant", bash("A")),
        claude("3", "2", "user", [result("A", "first")]),
        claude("4", "3", "assistant", bash("A")),
        claude("5", "4", "user", [result("A", "second")]),
    )
    (rollout,) = read("claude_code", *lines)
    assert [turn["content"] for turn in rollout.turns] == ["", "first", "", "second"]


def test_a_sub_agent_begins_with_its_own_prompt_and_the_main_thread_goes_on_without_it() -> None:
    lines = (
        claude("1", None, "user", "Search."),
        claude("2", "1", "assistant", bash("A")),
        claude("s1", "2", "user", "Find it.", isSidechain=True, agentId="x"),
        claude("s2", "s1", "assistant", text("Found."), isSidechain=True, agentId="x", model="small"),
        claude("n1", "s2", "user", "Deeper.", isSidechain=True, agentId="y"),
        claude("n2", "n1", "assistant", text("Nothing."), isSidechain=True, agentId="y"),
        claude("3", "s2", "user", [result("A")]),
        claude("4", "3", "assistant", text("Done.")),
    )
    agent, deeper, main = read("claude_code", *lines)
    assert [each.prompt[0]["content"] for each in (agent, deeper, main)] == ["Find it.", "Deeper.", "Search."]
    assert [each.parent for each in (agent, deeper, main)] == ["s/msg-4", "s/msg-s2", None]
    assert [json.loads(each.extra or "")["is_sidechain"] for each in (agent, deeper, main)] == [True, True, False]
    assert [each.teacher for each in (agent, deeper, main)] == ["small", "claude", "claude"]
    assert (trained(agent), trained(deeper), trained(main)) == (["Found."], ["Nothing."], ["", "Done."])


@given(st.data())
def test_however_the_lines_of_parallel_calls_are_hung_the_rollout_is_one(data: st.DataObject) -> None:
    """Calls and results in any order of writing, each below any line of the same exchange before it."""
    lines: list[dict[str, Any]] = [claude("0", None, "user", "q")]
    last = "0"
    expected: list[str] = []
    for step in range(data.draw(st.integers(1, 3))):
        calls = [f"{step}.{n}" for n in range(data.draw(st.integers(1, 3)))]
        written, waiting = [], list(calls)
        open_calls: list[str] = []
        while waiting or open_calls:
            is_call = bool(waiting) and (not open_calls or data.draw(st.booleans()))
            source = waiting if is_call else open_calls
            call = source.pop(0) if is_call else source.pop(data.draw(st.integers(0, len(source) - 1)))
            above = data.draw(st.sampled_from(written)) if written else last
            uuid = f"{'call' if is_call else 'result'} {call}"
            if is_call:
                open_calls.append(call)
                lines.append(claude(uuid, above, "assistant", bash(call), answer=f"m{step}"))
            else:
                lines.append(claude(uuid, above, "user", [result(call)]))
            written.append(uuid)
        last = data.draw(st.sampled_from(written))
        expected += ["", *calls]
    lines.append(claude("end", last, "assistant", text("Done.")))
    (rollout,) = read("claude_code", *lines)
    assert roles(rollout) == [*expected, "Done."]
    assert trained(rollout) == [*("" for each in expected if not each), "Done."]


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


def test_a_line_whose_message_is_no_object_costs_itself_alone() -> None:
    asked, answered = claude("a", None, "user", "q"), claude("b", "a", "assistant", text("Done."))
    odd = {"type": "user", "uuid": "c", "parentUuid": "b", "message": "none"}
    raw = "\n".join(map(json.dumps, (asked, answered, odd))).encode()
    (rollout, _) = read_document(FORMATS["claude_code"], "t", raw, "file")[::-1]
    assert isinstance(rollout, Rollout)
    assert trained(rollout) == ["Done."]
    assert "whose message is no object" in faults("claude_code", asked, answered, odd)[0]
