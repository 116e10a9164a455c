"""What parsers take for a call, for content, and for neither."""

import json

import pytest

from negtraj_dagster.agent.call_parsers import PARSERS, CallFormatError

TYPES = {"f": {"a": ["string"], "n": ["integer"], "list": ["array"], "flag": ["boolean"]}}
BEGIN, SEP, END = "<｜tool▁call▁begin｜>", "<｜tool▁sep｜>", "<｜tool▁call▁end｜>"
CALLS_BEGIN, CALLS_END = "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"


def parse(name, text):
    content, calls = PARSERS[name](text, TYPES)
    return content, [(call["name"], json.loads(call["arguments"])) for call in calls]


@pytest.mark.parametrize(
    ("name", "text", "content", "calls"),
    [
        ("hermes", "", "", []),
        ("hermes", "No call.", "No call.", []),
        (
            "hermes",
            'Say.\n<tool_call>\n{"name": "f", "arguments": {"a": "</tool_call>"}}\n</tool_call>\n',
            "Say.\n",
            [("f", {"a": "</tool_call>"})],
        ),
        (
            "hermes",
            '<tool_call>{"arguments": {}, "name": "f"}</tool_call>'
            '<tool_call>{"name": "g", "arguments": {"n": [1.5]}}</tool_call>',
            "",
            [("f", {}), ("g", {"n": [1.5]})],
        ),
        (
            "function_xml",
            "<tool_call>\n<function=f>\n<parameter=a>\n7\n\n</parameter>\n<parameter=n>\n7\n</parameter>\n<parameter=flag>\nTrue\n"
            "</parameter>\n</function>\n</tool_call>",
            "",
            [("f", {"a": "7\n", "n": 7, "flag": True})],
        ),
        ("function_xml", "<tool_call>\n<function=g>\n</function>\n</tool_call>", "", [("g", {})]),
        (
            "glm",
            "<tool_call>f\n<arg_key>a</arg_key>\n<arg_value>x y</arg_value>\n"
            "<arg_key>list</arg_key>\n<arg_value>[1]</arg_value>\n</tool_call>",
            "",
            [("f", {"a": "x y", "list": [1]})],
        ),
        ("llama_json", '{"name": "f", "parameters": {"a": "x"}}', "", [("f", {"a": "x"})]),
        ("llama_json", '<|python_tag|>{"name": "f", "parameters": {}}', "", [("f", {})]),
        ("llama_json", '{"answer": 5}', '{"answer": 5}', []),
        (
            "llama_json",
            '<|python_start|>Say.<|python_end|>{"name": "f", "parameters": {}}{"name": "g", "parameters": {}}',
            "Say.",
            [("f", {}), ("g", {})],
        ),
        (
            "mistral",
            'Say.[TOOL_CALLS] [{"name": "f", "arguments": {"a": "]"}, "id": "abcdefghi"}]',
            "Say.",
            [("f", {"a": "]"})],
        ),
        (
            "pythonic",
            "<|tool_call_start|>[f(a='x]', n=-7), g(list=[1, true, None], o={'k': 1.5})]<|tool_call_end|>",
            "",
            [("f", {"a": "x]", "n": -7}), ("g", {"list": [1, True, None], "o": {"k": 1.5}})],
        ),
        ("jamba", ' <tool_calls>[\n {"name": "f", "arguments": {"a": "x"}}\n]</tool_calls>', " ", [("f", {"a": "x"})]),
        (
            "gemma",
            '<|tool_call>call:f{a:<|"|>x, {y}<|"|>,n:-7,list:[1.5,{k:true}],e:[]}<tool_call|>Say.',
            "Say.",
            [("f", {"a": "x, {y}", "n": -7, "list": [1.5, {"k": True}], "e": []})],
        ),
        (
            "deepseek",
            f'Say.{CALLS_BEGIN}{BEGIN}function{SEP}f\n```json\n{{"a": "x"}}\n```{END}\n{BEGIN}g{SEP}{{}}{END}{CALLS_END}',
            "Say.",
            [("f", {"a": "x"}), ("g", {})],
        ),
    ],
)
def test_calls_are_read(name, text, content, calls):
    assert parse(name, text) == (content, calls)


HERMES_FAULTS = {
    "no end": '<tool_call>\n{"name": "f", "arguments": {}}',
    "no beginning": '{"name": "f", "arguments": {}}\n</tool_call>',
    "not JSON": "<tool_call>\n{'name': 'f'}\n</tool_call>",
    "no arguments": '<tool_call>{"name": "f"}</tool_call>',
    "arguments as text": '<tool_call>{"name": "f", "arguments": "{}"}</tool_call>',
    "arguments as a list": '<tool_call>{"name": "f", "arguments": []}</tool_call>',
    "a name that is a number": '<tool_call>{"name": 7, "arguments": {}}</tool_call>',
    "a name that is empty": '<tool_call>{"name": "", "arguments": {}}</tool_call>',
    "an unknown key": '<tool_call>{"name": "f", "arguments": {}, "why": "x"}</tool_call>',
    "a key twice": '<tool_call>{"name": "f", "arguments": {"a": 1, "a": 2}}</tool_call>',
    "NaN": '<tool_call>{"name": "f", "arguments": {"a": NaN}}</tool_call>',
    "an infinite number": '<tool_call>{"name": "f", "arguments": {"a": 1e999}}</tool_call>',
    "half of a surrogate pair": '<tool_call>{"name": "f", "arguments": {"a": "\\ud800"}}</tool_call>',
    "a number of many digits": '<tool_call>{"name": "f", "arguments": {"a": [1' + "0" * 39 + "]}}</tool_call>",
    "51 levels": '<tool_call>{"name": "f", "arguments": {"a": ' + "[" * 51 + "]" * 51 + "}}</tool_call>",
    "too deep": '<tool_call>{"name": "f", "arguments": {"a": ' + "[" * 100_000 + "</tool_call>",
    "text behind it": '<tool_call>{"name": "f", "arguments": {}}</tool_call> and more',
    "text between two": " and ".join(['<tool_call>{"name": "f", "arguments": {}}</tool_call>'] * 2),
}


@pytest.mark.parametrize("fault", HERMES_FAULTS)
def test_what_looks_like_a_call_and_is_none_is_refused(fault):
    with pytest.raises(CallFormatError):
        parse("hermes", HERMES_FAULTS[fault])


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("function_xml", "<tool_call>\n<function=f>\n<parameter=n>\nseven\n</parameter>\n</function>\n</tool_call>"),
        ("function_xml", "<tool_call>\n<function=f>\n<parameter=a>\nx\n</function>\n</tool_call>"),
        ("function_xml", '<tool_call>{"name": "f", "arguments": {}}</tool_call>'),
        ("glm", "<tool_call></tool_call>"),
        ("llama_json", '{"name": "f", "parameters": {"a": "x"'),
        ("llama_json", '{"name": "f", "arguments": {}}'),
        ("mistral", "[TOOL_CALLS] []"),
        ("mistral", '[TOOL_CALLS] [{"name": "f", "arguments": {}}] more'),
        ("pythonic", "<|tool_call_start|>[f('x')]<|tool_call_end|>"),
        ("pythonic", "<|tool_call_start|>[f(a=__import__('os'))]<|tool_call_end|>"),
        ("pythonic", "<|tool_call_start|>[f(a=1e999)]<|tool_call_end|>"),
        ("pythonic", "<|tool_call_start|>f(a=1)<|tool_call_end|>"),
        ("pythonic", "<|tool_call_start|>[f(a=" + "-" * 100_000 + "1)]<|tool_call_end|>"),
        ("pythonic", "<|tool_call_start|>[f(a=1, a=2)]<|tool_call_end|>"),
        ("jamba", "<tool_calls>[]</tool_calls>"),
        ("gemma", "<|tool_call>call:f{a:x}<tool_call|>"),
        ("gemma", "<|tool_call>call:f{a:nan}<tool_call|>"),
        ("gemma", '<|tool_call>call:f{a:<|"|>x}<tool_call|>'),
        ("gemma", "<|tool_call>call:f{a:" + "[" * 100_000 + "}<tool_call|>"),
        ("gemma", "Say.<|tool_call>call:f{a:1}<tool_call|>more"),
        ("deepseek", f"{CALLS_BEGIN}{BEGIN}f{SEP}{{}}{END}"),
        ("deepseek", f"{CALLS_BEGIN}{CALLS_END}"),
        ("deepseek", f"{CALLS_BEGIN}{BEGIN}function{SEP}f\n```json\n{{}}\n{END}{CALLS_END}"),
    ],
)
def test_other_syntaxes_refuse_their_own_faults(name, text):
    with pytest.raises(CallFormatError):
        parse(name, text)


def test_arguments_keep_their_order_and_are_written_as_recorded_ones_are():
    _, (call,) = PARSERS["hermes"]('<tool_call>{"name": "f", "arguments": {"b":1.0,"a":"é"}}</tool_call>', TYPES)
    assert call["arguments"] == '{"b": 1.0, "a": "é"}'
