"""Claude Code's sessions: parallel calls, lines written again, side chains, compactions; each answer is trained once."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from negtraj_dagster.rollouts.formats import FORMATS
from negtraj_dagster.schema import Rollout
from tests.rollouts.formats.test_sessions import claude, faults, read, text, trained
from tests.support.documents import read_document

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


def test_a_line_whose_message_is_no_object_costs_itself_alone() -> None:
    asked, answered = claude("a", None, "user", "q"), claude("b", "a", "assistant", text("Done."))
    odd = {"type": "user", "uuid": "c", "parentUuid": "b", "message": "none"}
    raw = "\n".join(map(json.dumps, (asked, answered, odd))).encode()
    (rollout, _) = read_document(FORMATS["claude_code"], "t", raw, "file")[::-1]
    assert isinstance(rollout, Rollout)
    assert trained(rollout) == ["Done."]
    assert "whose message is no object" in faults("claude_code", asked, answered, odd)[0]
