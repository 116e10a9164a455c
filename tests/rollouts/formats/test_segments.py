"""Trees and spans: every prompt exact, each output of the model trained once, retries and branches with their parents."""

import json

from hypothesis import given
from hypothesis import strategies as st

from negtraj_dagster.errors import RolloutFormatError
from negtraj_dagster.rollouts.formats.segments import Call, Message, branches, merge_calls, read_tree, segment_parents
from negtraj_dagster.schema import Turn


def user(text: str) -> Turn:
    return {"role": "user", "content": text}


def agent(text: str) -> Turn:
    return {"role": "assistant", "content": text}


def trained(turns: list[Turn]) -> list[str]:
    return [turn["content"] for turn in turns if turn["role"] == "assistant" and turn.get("loss", True)]


def test_calls_that_were_sent_all_that_was_said_are_one_segment() -> None:
    first = Call("a", [user("q")], [agent("1")])
    second = Call("b", [user("q"), agent("1"), user("r")], [agent("2")])
    (segment,) = merge_calls([first, second])
    assert segment.turns == [user("q"), agent("1"), user("r"), agent("2")]
    assert segment.calls == ["a", "b"]


def test_a_retry_is_a_segment_of_its_own_and_both_answers_are_trained() -> None:
    calls = [Call(name, [user("q")], [agent(name)]) for name in "ab"]
    first, retry = merge_calls(calls)
    assert (trained(first.turns), trained(retry.turns)) == (["a"], ["b"])
    assert (first.parent, retry.parent) == (None, "a")


def test_what_stands_in_a_compacted_prompt_is_context() -> None:
    calls = [Call("a", [user("q")], [agent("1")]), Call("b", [user("summary"), agent("1")], [agent("2")])]
    _, after = merge_calls(calls)
    assert trained(after.turns) == ["2"]
    assert after.turns[:-1] == [user("summary"), {**agent("1"), "loss": False}]


@given(st.lists(st.tuples(st.integers(-1, 12), st.sampled_from(["user", "assistant"])), min_size=1, max_size=14))
def test_every_answer_of_a_tree_is_trained_once_and_every_path_is_whole(shape: list[tuple[int, str]]) -> None:
    messages = []
    for number, (parent, role) in enumerate(shape):
        at = f"m{parent}" if 0 <= parent < number else None
        turn: Turn = {"role": "user" if role == "user" else "assistant", "content": f"m{number}"}
        messages.append(Message(f"m{number}", at, [turn]))
    segments = branches(messages)
    answers = [text for segment in segments for text in trained(segment.turns)]
    assert sorted(answers) == sorted(f"m{n}" for n, (_, role) in enumerate(shape) if role == "assistant")
    by_name = {message.name: message for message in messages}
    for segment in segments:
        path: list[str] = []
        at: str | None = segment.name
        while at is not None:
            path.append(at)
            at = by_name[at].parent
        assert [turn["content"] for turn in segment.turns] == path[::-1]


@given(st.lists(st.lists(st.sampled_from("xyz"), max_size=3), min_size=1, max_size=8))
def test_every_call_is_trained_once_after_exactly_what_it_was_sent(sent: list[list[str]]) -> None:
    calls = [Call(f"c{n}", [user(text) for text in texts], [agent(f"answer {n}")]) for n, texts in enumerate(sent)]
    segments = merge_calls(calls)
    found = {}
    for segment in segments:
        for index, turn in enumerate(segment.turns):
            if turn["role"] == "assistant" and turn.get("loss", True):
                assert turn["content"] not in found
                found[turn["content"]] = [json.dumps(each) for each in segment.turns[:index]]
    assert found == {f"answer {n}": [json.dumps(user(text)) for text in texts] for n, texts in enumerate(sent)}


def by_comparing_all(calls: list[Call]) -> list[tuple[str, str | None, list[str]]]:
    """Each segment's name, parent and calls, with every call compared with every segment before it."""
    found: list[tuple[str, str | None, list[str]]] = []
    held: list[list[Turn]] = []
    for call in calls:
        sent = list(call.sent)
        whole = [place for place, turns in enumerate(held) if sent[: len(turns)] == turns]
        place = max(whole, key=lambda place: len(held[place]), default=len(held))
        if place == len(held):
            shared = [max(n for n in range(len(sent) + 1) if turns[:n] == sent[:n]) for turns in held]
            found.append((call.name, found[shared.index(max(shared))][0] if held else None, []))
            held.append([])
        found[place][2].append(call.name)
        held[place] = [*sent, *call.answered]
    return found


@given(
    st.lists(
        st.tuples(st.integers(0, 9), st.integers(0, 4), st.text("xy", max_size=2), st.sampled_from(["", "1", "2"])), min_size=1
    )
)
def test_segments_are_those_found_by_comparing_all(shape: list[tuple[int, int, str, str]]) -> None:
    calls: list[Call] = []
    for number, (before, n_kept, texts, answer) in enumerate(shape):
        sent = [*calls[before].sent, *calls[before].answered][: n_kept or None] if before < len(calls) else []
        new = [user(text) for text in texts]
        calls.append(Call(f"c{number}", [*sent, *new], [agent(answer)] if answer else []))
    found = [(segment.name, segment.parent, segment.calls) for segment in merge_calls(calls)]
    assert found == by_comparing_all(calls)


def test_a_circle_of_parents_ends() -> None:
    with_circle = [Message("a", "b", [user("a")]), Message("b", "a", [agent("b")]), Message("c", "b", [agent("c")])]
    (segment,) = branches(with_circle)
    assert trained(segment.turns) == ["b", "c"]


@given(st.lists(st.tuples(st.integers(-1, 10), st.booleans()), min_size=1, max_size=12))
def test_what_stands_below_a_message_that_cannot_be_read_is_left_out(shape: list[tuple[int, bool]]) -> None:
    parents = {f"m{n}": f"m{above}" if 0 <= above < len(shape) else None for n, (above, _) in enumerate(shape)}

    def turns_of(name: str) -> list[Turn]:
        if not shape[int(name[1:])][1]:
            raise RolloutFormatError("no text")
        return [user(name)]

    messages, errors = read_tree(parents, turns_of)
    assert len(errors) == sum(not is_readable for _, is_readable in shape)
    for name in parents:
        path: list[str] = []
        at: str | None = name
        while at is not None and at not in path:
            path.append(at)
            at = parents[at]
        assert (name in {message.name for message in messages}) == all(shape[int(each[1:])][1] for each in path)


def test_a_conversation_has_the_segment_it_began_from_as_its_parent() -> None:
    messages = [
        Message("a", None, [user("q")]),
        Message("b", "a", [agent("1")]),
        Message("c", "a", [agent("2")]),
        Message("d", None, [user("summary")]),
    ]
    assert segment_parents(branches(messages), {"d": "a"}) == {"b": None, "c": "b", "d": "b"}
