"""Random records of the formats of which trajtok reads plain ones: usual ones, and such as have to be judged."""

import json
from typing import Any

from hypothesis import strategies as st

STRANGE = (
    "<think>a</think>b",
    "</think>",
    '{"a": [1, NaN]}',
    '{"token": "x"}',
    '{"a": 1, "a": "b"}',
    "[INST] x",
    '["x", {"y": "z"}]',
)
TELLING = ("ghp_" + "a1B2" * 9, "password = hunter2X9", "q1", "true", "assistant", "  ", "1e5")
LETTERS = st.sampled_from('ab1 \n\t\x00\x1f\x7f"\\/{}[]é長\u2028😀<>|')
TEXTS = st.text(LETTERS, max_size=6) | st.sampled_from(STRANGE) | st.sampled_from(TELLING)
NUMBERS = (
    st.integers(-(2**70), 2**70) | st.integers(-3, 3000) | st.floats(allow_nan=False) | st.sampled_from([0.0, -0.0, 0.5, 1.0])
)
SCALARS = TEXTS | NUMBERS | st.booleans() | st.none()
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3), max_leaves=6
)
KEYS = st.sampled_from(
    ["content", "role", "name", "value", "key", "id", "api_key", "Token", "x", "logprob", "text", "K", "{", "n"]
)


def often(usual: st.SearchStrategy[Any], other: st.SearchStrategy[Any] = JSON) -> st.SearchStrategy[Any]:
    """The usual value nine times of ten."""
    return st.integers(0, 9).flatmap(lambda n: usual if n else other)


def some(keys: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[dict[str, Any]]:
    """An object with some of the keys, seldom with one more."""
    known = st.fixed_dictionaries({}, optional=keys)
    return st.tuples(known, often(st.just({}), st.dictionaries(KEYS, JSON, max_size=1))).map(
        lambda both: {**both[0], **both[1]}
    )


ARGUMENTS = st.dictionaries(TEXTS, JSON, max_size=2)
FUNCTION = {"name": often(TEXTS), "arguments": ARGUMENTS | ARGUMENTS.map(json.dumps) | TEXTS | st.none()}
CALLS = st.lists(
    st.fixed_dictionaries(FUNCTION, optional={"id": SCALARS})
    | st.fixed_dictionaries({"function": st.fixed_dictionaries(FUNCTION)}, optional={"id": TEXTS, "type": st.just("function")})
    | some({**FUNCTION, "index": st.integers(0, 2)}),
    max_size=2,
)
ROLES = often(st.sampled_from(["assistant", "user", "system", "tool"]), TEXTS)


@st.composite
def messages(draw: st.DrawFn) -> Any:
    role = draw(ROLES)
    message = {"role": role, "content": draw(often(TEXTS))}
    if role == "assistant" and draw(st.booleans()):
        message["tool_calls"] = draw(often(CALLS))
        message["content"] = draw(TEXTS | st.none())
    if role == "tool" and draw(st.booleans()):
        message["tool_call_id"] = draw(often(TEXTS | st.none()))
    if draw(st.integers(0, 9)) == 0:
        message[draw(KEYS)] = draw(JSON)
    return message


OLDER = {
    "function_call": st.fixed_dictionaries(FUNCTION) | JSON,
    "name": TEXTS | JSON,
    "tool_call_id": TEXTS | JSON,
    "tool_calls": CALLS | st.just([]),
    "refusal": st.none() | JSON,
    "annotations": st.just([]) | JSON,
    "loss": JSON,
    "weight": JSON,
    "reasoning": JSON,
    "ranges": st.just([]) | JSON,
    "tool_call_ids": st.lists(TEXTS, max_size=2),
}
"""Keys of chat completions that other versions of them, or their exporters, write."""


@st.composite
def chat_messages(draw: st.DrawFn) -> Any:
    message = draw(messages())
    if draw(st.integers(0, 3)) == 0:
        message["role"] = draw(st.sampled_from(["function", "developer", "tool", "assistant"]))
    for _ in range(draw(st.sampled_from([0, 0, 1, 1, 2]))):
        key = draw(st.sampled_from(sorted(OLDER)))
        message[key] = draw(often(OLDER[key] | st.none()))
    return message


SPEAKERS = ["human", "gpt", "system", "observation", "function_call", "tool_call", "tool", "assistant", "user", "ai"]
SAID_CALLS = st.one_of(
    [st.fixed_dictionaries(FUNCTION, optional={"more": SCALARS}), st.lists(st.fixed_dictionaries(FUNCTION), max_size=2)]
)


@st.composite
def speaker_turns(draw: st.DrawFn) -> Any:
    speaker = draw(often(st.sampled_from(SPEAKERS)))
    is_call = isinstance(speaker, str) and speaker.endswith("_call")
    said = draw(often(SAID_CALLS.map(json.dumps) if is_call else TEXTS | st.sampled_from(["<image>x", ""])))
    keys = draw(st.sampled_from([("from", "value"), ("role", "content")]))
    message = {keys[0]: speaker, keys[1]: said}
    if draw(st.integers(0, 3)) == 0:
        message["loss"] = draw(often(st.booleans() | st.none()))
    if draw(st.integers(0, 9)) == 0:
        message[draw(KEYS | st.sampled_from(["weight", "tool_calls", "from"]))] = draw(JSON)
    return message


ADP_ITEMS = st.fixed_dictionaries(
    {
        "class_": often(
            st.sampled_from(["text_observation", "text_observation", "message_action", "code_action", "api_action"])
        ),
        "content": often(TEXTS),
    },
    optional={
        "source": often(st.sampled_from(["user", "environment", "agent", "assistant"]) | st.none()),
        "name": often(st.sampled_from(["system", "f"]) | st.none()),
        "description": often(TEXTS | st.none()),
        "language": often(st.sampled_from(["bash", ""])),
        "function": often(st.sampled_from(["f", ""])),
        "kwargs": often(ARGUMENTS | st.none()),
        "tool_call_id": often(TEXTS | st.none()),
        "reasoning_content": often(st.none()),
        "more": often(st.none() | st.just([])),
    },
)
NAT_TURNS = st.fixed_dictionaries(
    {"role": often(st.sampled_from(["assistant", "gpt", "user", "human", "system"])), "content": often(TEXTS)},
    optional={"loss": often(st.booleans() | st.none())},
)
OUTCOME = {"reward": often(st.booleans() | st.none()), "pred": SCALARS, "score": often(NUMBERS | st.booleans() | st.none())}
TOOLS = often(st.lists(st.dictionaries(TEXTS, JSON, max_size=2), max_size=2) | TEXTS | st.sampled_from(["[]", '[{"a": 1}]']))
NAMES = ("source", "teacher", "subject", "session", "licence", "origin_url", "parent", "group")
COMMON: dict[str, st.SearchStrategy[Any]] = {
    **dict.fromkeys(NAMES, often(TEXTS | st.integers())),
    **OUTCOME,
    "gold": SCALARS,
    "tools": TOOLS,
    "is_evaluation": often(st.just(False) | st.none()),
}
RECORDS = {
    "nat": st.tuples(
        st.fixed_dictionaries({"id": often(TEXTS | st.integers()), "conversations": often(st.lists(NAT_TURNS, max_size=3))}),
        some({"source": often(TEXTS), "info": often(some({**OUTCOME, "gt": SCALARS, "acc": JSON})), "extra": JSON}),
    ),
    "negtraj": st.tuples(
        st.fixed_dictionaries(
            {"question_id": often(TEXTS | st.integers()), "messages": often(st.lists(messages(), max_size=3))}
        ),
        some({**COMMON, "prompt": often(st.lists(messages(), max_size=2))}),
    ),
    "openai": st.tuples(
        st.fixed_dictionaries({"messages": often(st.lists(chat_messages(), max_size=4))}),
        some(
            {
                **COMMON,
                **dict.fromkeys(("question_id", "instance_id", "run_id", "license"), TEXTS),
                **dict.fromkeys(("metadata", "uuid", "images", "tokenizer"), often(st.none() | st.just([]))),
                "resolved": st.booleans(),
                "model": SCALARS,
                "metadatum": JSON,
                "rewards": often(st.none()),
            }
        ),
    ),
    "adp": st.tuples(
        st.fixed_dictionaries({"content": often(st.lists(ADP_ITEMS, max_size=4))}),
        some({"id": often(TEXTS | st.integers()), "details": JSON, "schema_version": TEXTS, "more": JSON}),
    ),
    "llamafactory": st.tuples(
        st.fixed_dictionaries(
            {}, optional=dict.fromkeys(("conversations", "messages"), often(st.lists(speaker_turns(), max_size=4)))
        ),
        some(
            {
                **dict.fromkeys(("id", "question_id", "source", "system"), often(TEXTS | st.integers() | st.none())),
                **dict.fromkeys(("kto_tag", "label"), often(st.booleans() | st.none())),
                **dict.fromkeys(("chosen", "rejected_response", "images", "videos"), often(st.none() | st.just([]))),
                "tools": TOOLS,
                "more": JSON,
            }
        ),
    ),
}
