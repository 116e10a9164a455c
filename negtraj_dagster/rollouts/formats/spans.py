"""Traces of spans: OpenTelemetry's GenAI conventions and OpenInference. A model's call says what it was sent and answered.

A file holds spans in any order and nesting (exporters' JSON, JSON lines, or a list), with attributes flat or as OTLP's list of
keys and values. Outcomes come from `gen_ai.evaluation.result` events and from annotations.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from negtraj_dagster.errors import RolloutFormatError
from negtraj_dagster.rollouts.formats.attributes import Attributes, Flat, attributes_of, unflattened
from negtraj_dagster.rollouts.formats.base import Reading, extra_json, split_prompt
from negtraj_dagster.rollouts.formats.blocks import read_blocks, read_text
from negtraj_dagster.rollouts.formats.fields import check, require
from negtraj_dagster.rollouts.formats.flat_messages import plain_turn
from negtraj_dagster.rollouts.formats.openai import json_list, read_chat_message
from negtraj_dagster.rollouts.formats.segments import Call, Segment, merge_calls
from negtraj_dagster.rollouts.formats.tool_calls import read_tools
from negtraj_dagster.schema import Rollout, Turn, json_as_recorded

if TYPE_CHECKING:
    from negtraj_dagster.rollouts.documents import FileDocument

MODEL_CALLS = ("chat", "generate_content", "text_completion")
EVALUATION = "gen_ai.evaluation.result"
PASSED = {"pass": True, "passed": True, "correct": True, "fail": False, "failed": False, "incorrect": False}
"""Labels of evaluations that say success or failure and nothing else."""
SCORE_PREFIXES = (
    ("annotations", "annotation"),
    ("trace.annotations", "annotation"),
    ("session.annotations", "annotation"),
    ("evaluations", "evaluation"),
)
"""Where OpenInference has scores of a span, its trace or its session, and under which key each stands."""


TRACE_ID, SPAN_ID, PARENT_ID = ("trace_id", "traceId"), ("span_id", "spanId"), ("parent_id", "parentSpanId")
"""How they are spelled."""


MESSAGES = ("llm.input_messages", "llm.output_messages")
"""Where OpenInference has what a model was sent, and what it answered."""


Score = tuple[str | None, str, float | None, str | None]
"""The span that is judged, None for the trace as a whole; the judge's name, number and label."""


@dataclass
class _Trace:
    calls: list[Call] = field(default_factory=list)
    model: str = ""
    tools: str | None = None
    session: str | None = None
    scores: list[Score] = field(default_factory=list)
    faults: list[RolloutFormatError] = field(default_factory=list)
    messages: dict[str, list[tuple[Flat, Turn]]] = field(default_factory=dict)
    """Of the last call, by prefix: as recorded, and as read."""


def read_otel(task: str, document: "FileDocument") -> Reading:
    """OpenTelemetry GenAI spans."""
    return _read(task, document, _otel_call, "gen_ai.operation.name")


def read_openinference(task: str, document: "FileDocument") -> Reading:
    """OpenInference spans."""
    return _read(task, document, _openinference_call, "openinference.span.kind")


def _read(task: str, document: "FileDocument", read_call: Any, mark: str) -> Reading:
    spans = [span for item in document.objects for span in _spans(item)]
    traces: dict[str, _Trace] = {}
    n_calls = 0
    for number, span in enumerate(sorted(spans, key=_start)):
        attributes = attributes_of(span)
        name, span_id = _id(span, TRACE_ID) or "trace", _id(span, SPAN_ID)
        if (trace := traces.get(name)) is None:
            trace = traces[name] = _Trace()
        trace.session = trace.session or attributes.first("session.id", "gen_ai.conversation.id")
        _take_scores(trace, span, span_id, attributes)
        try:
            call = read_call(attributes, span, span_id or f"span {number}", trace)
        except RolloutFormatError as error:
            trace.faults.append(RolloutFormatError(f"trace {name:.40}, span {span_id or number}: {error}"))
            call = None
        if call is not None:
            trace.calls.append(call)
            n_calls += 1
    faults = [fault for trace in traces.values() for fault in trace.faults]
    if not n_calls and not faults:
        raise RolloutFormatError(
            f"{len(spans)} spans, and none is a call of a model with its messages ({mark}); record the contents"
        )
    rollouts: list[Rollout | RolloutFormatError] = []
    for name, trace in traces.items():
        rollouts += [_rollout(task, name, trace, segment) for segment in merge_calls(trace.calls)]
    return [*rollouts, *faults]


def _rollout(task: str, name: str, trace: _Trace, segment: Segment) -> Rollout | RolloutFormatError:
    try:
        prompt, text_parts = split_prompt(segment.turns, f"trace {name:.40}")
    except RolloutFormatError as error:
        return error
    scores = _scores_of(trace, segment) if trace.scores else []
    verdicts = {PASSED[label.lower()] for _, _, _, label in scores if label and label.lower() in PASSED}
    values = {(name, value) for _, name, value, _ in scores if value is not None}
    return Rollout(
        task=task,
        question_id="",
        source="",
        turns=text_parts,
        reward=verdicts.pop() if len(verdicts) == 1 else None,
        teacher=trace.model,
        session=trace.session or name,
        tools=trace.tools,
        prompt=prompt,
        score=next(iter(values))[1] if len(values) == 1 else None,
        parent=f"{name}/{segment.parent}" if segment.parent else None,
        group=trace.session or name,
        extra=extra_json({"trace": name, "segment": segment.name, "calls": segment.calls, "scores": list(map(list, scores))}),
    )


def _scores_of(trace: _Trace, segment: Segment) -> list[Score]:
    """The trace's scores without those of another rollout's calls."""
    others = {call.name for call in trace.calls} - set(segment.calls)
    return [score for score in trace.scores if score[0] not in others]


def _spans(value: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The spans of an exporter's object: OTLP's nesting, a list under `spans` or `data`, or the span itself."""
    for key in ("resourceSpans", "scopeSpans", "spans", "data"):
        if isinstance(value.get(key), list):
            for item in value[key]:
                yield from _spans(check(item, key, dict))
            return
    yield value


def _start(span: Mapping[str, Any]) -> str:
    """Sorts spans by when they began; digits alone are nanoseconds, of equal length."""
    start: Any = ""
    for key in ("startTimeUnixNano", "start_time", "startTime", "start_time_unix_nano"):
        if key in span:
            start = span[key]
            break
    if isinstance(start, list) and len(start) == 2:  # seconds and nanoseconds
        return f"{int(start[0]):020d}.{int(start[1]):09d}"
    return f"{start:020d}" if isinstance(start, int) else str(start)


def _id(span: Mapping[str, Any], names: tuple[str, str]) -> str | None:
    first, second = names
    for holder in (span, span.get("context"), span.get("spanContext")):
        if type(holder) is dict and (identifier := holder.get(first) or holder.get(second)):
            return str(identifier)
    return None


def _otel_call(attributes: Attributes, span: Mapping[str, Any], name: str, trace: _Trace) -> Call | None:
    del span
    if "ai.prompt.messages" in attributes:
        return _vercel_call(attributes, name, trace)
    sent, answered = attributes.get("gen_ai.input.messages"), attributes.get("gen_ai.output.messages")
    if attributes.get("gen_ai.operation.name") not in MODEL_CALLS or sent is None or answered is None:
        return None
    trace.model = trace.model or attributes.first("gen_ai.response.model", "gen_ai.request.model") or ""
    trace.tools = trace.tools or read_tools(attributes.get("gen_ai.tool.definitions"), "gen_ai.tool.definitions")
    turns = []
    if (system := attributes.get("gen_ai.system_instructions")) is not None:
        turns += read_blocks(json_list(system, "gen_ai.system_instructions"), "system", "gen_ai.system_instructions")
    turns += _parts(sent, "gen_ai.input.messages")
    answers = _parts(answered, "gen_ai.output.messages")
    return Call(name, turns, answers[:1])  # one choice: the others were not gone on with


def _vercel_call(attributes: Attributes, name: str, trace: _Trace) -> Call | None:
    """As Vercel's AI SDK writes a call beside the conventions' attributes."""
    text, calls = attributes.get("ai.response.text"), attributes.get("ai.response.toolCalls")
    if not text and not calls:
        return None
    trace.model = trace.model or attributes.first("gen_ai.response.model", "gen_ai.request.model", "ai.model.id") or ""
    turns: list[Turn] = []
    for index, value in enumerate(json_list(attributes["ai.prompt.messages"], "ai.prompt.messages")):
        at = f"ai.prompt.messages[{index}]"
        message = check(value, at, dict)
        content, role = message.get("content"), require(message, "role", str, at=at)
        if isinstance(content, list):
            turns += read_blocks(content, role, at)
        else:
            turns += read_text(check(content or "", f"{at}.content", str), role, at)
    if text and type(text) is str and not calls:
        return Call(name, turns, read_text(text, "assistant", "ai.response"))
    text_parts = [{"type": "text", "text": text}] if text else []
    called = [{**check(item, "ai.response.toolCalls", dict), "type": "tool-call"} for item in _calls(calls)]
    return Call(name, turns, read_blocks([*text_parts, *called], "assistant", "ai.response"))


def _calls(calls: object) -> list[Any]:
    return json_list(calls, "ai.response.toolCalls") if calls else []


def _parts(messages: Any, place: str) -> list[Turn]:
    turns: list[Turn] = []
    for index, message in enumerate(json_list(messages, place)):
        at = f"{place}[{index}]"
        turns += read_blocks(require(check(message, at, dict), "parts", list, at=at), require(message, "role", str, at=at), at)
    return turns


def _openinference_call(attributes: Attributes, span: Mapping[str, Any], name: str, trace: _Trace) -> Call | None:
    if (attributes.get("openinference.span.kind") or span.get("span_kind")) != "LLM":
        return None
    if not all(map(attributes.has_list, MESSAGES)):  # a call that failed has no answer
        return None
    trace.model = trace.model or attributes.first("llm.model_name") or ""
    if trace.tools is None and (tools := attributes.list_of("llm.tools")):
        schemas = [item.get("tool", {}).get("json_schema") for item in tools]
        trace.tools = json_as_recorded([json.loads(item) if isinstance(item, str) else item for item in schemas if item])
    sent, answered = (_messages(attributes, prefix, trace) for prefix in MESSAGES)
    return Call(name, sent, answered[:1])


def _messages(attributes: Attributes, prefix: str, trace: _Trace) -> list[Turn]:
    """Turns of the messages under a prefix: what was said before stands in every call again, and is read once."""
    if isinstance(nested := attributes.get(prefix), list):
        return [_message(value, f"{prefix}[{index}]") for index, value in enumerate(nested)]
    before = trace.messages.get(prefix, [])
    messages = []
    for index, flat in enumerate(attributes.flat_list(prefix)):
        if index < len(before) and _is_equal(before[index][0], flat):
            messages.append(before[index])
        else:
            messages.append((flat, plain_turn(flat) or _message(unflattened(flat), f"{prefix}[{index}]")))
    trace.messages[prefix] = messages
    return [turn for _, turn in messages]


def _is_equal(first: Flat, second: Flat) -> bool:
    """Whether two objects of texts alone are equal; of others it is not sure, for 1, 1.0 and true are equal to Python."""
    return first == second and all(type(value) is str for value in first.values())


def _message(value: object, place: str) -> Turn:
    message = dict(check(value, place, dict).get("message", {}))
    if contents := message.pop("contents", None):
        message["content"] = [part.get("message_content", {}) for part in contents]
    if calls := message.pop("tool_calls", None):
        message["tool_calls"] = [call.get("tool_call", {}) for call in calls]
    message = {key: message[key] for key in ("role", "content", "tool_calls", "tool_call_id") if key in message}
    message.setdefault("content", None if message.get("tool_calls") else "")
    return read_chat_message(message, place)[0]


def _take_scores(trace: _Trace, span: Mapping[str, Any], span_id: str | None, attributes: Attributes) -> None:
    for event in span.get("events") or ():
        if isinstance(event, dict) and event.get("name") == EVALUATION:
            _take_evaluation(trace, span_id, attributes_of(event))
    if (attributes.get("event.name") or span.get("name")) == EVALUATION:
        _take_evaluation(trace, _id(span, PARENT_ID), attributes)
    names = "\n".join(attributes)  # of hundreds of keys, sometimes
    if "annotations" not in names and "evaluations" not in names:
        return
    for prefix, key in SCORE_PREFIXES:
        for annotation in attributes.list_of(prefix):
            result = annotation.get(key, {})
            judged = span_id if prefix in ("annotations", "evaluations") else None
            _score(trace, judged, *(result.get(part) for part in ("name", "score", "label")))


def _take_evaluation(trace: _Trace, span_id: str | None, result: Attributes) -> None:
    _score(trace, span_id, *(result.get(f"gen_ai.evaluation.{key}") for key in ("name", "score.value", "score.label")))


def _score(trace: _Trace, span: str | None, name: object, value: object, label: object) -> None:
    number = float(value) if isinstance(value, (int, float)) else None
    trace.scores.append((span, str(name), number, str(label) if label is not None else None))
