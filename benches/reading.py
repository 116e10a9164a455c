"""What reading landed rollouts costs, through the asset's own code, each file in a process pinned to one core: MB/s and memory.

    python benches/reading.py [MEGABYTES] [FORMAT … | FORMAT:FILE[:N] …]

A line a format, or a real file of one, copied with other words until there are so many bytes: records into one file,
documents that are files into as many, or N traces into each. Bytes landed, rollouts and records in quarantine, seconds from
nothing to a published `raw_rollouts`, MB/s, what Python's `json` alone parses of the same bytes then (a core that others share
may be half as fast as an hour before), and the largest resident memory, also above that of reading 1 MB. Of what is written
here in formats of records one line of every hundred is bad, in seven ways. With a second run of nothing new, and, for `openai`,
the same without redaction.
"""

import contextlib
import json
import os
import random
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

WORDS = Path(__file__).read_text(encoding="utf-8").split()
BAD = (
    "{not json",
    '{"messages": []}',
    '["a", "list"]',
    '{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": 5}]}',
    '{"messages": [{"role": "user", "content": "never answered"}]}',
    '{"messages": [{"role": "user", "content": [{"type": "image_url"}]}, {"role": "assistant", "content": "x"}]}',
    '{"messages": "none", "messages": "twice"}',
)


def text(rng: random.Random, n_words: int) -> str:
    """Words of this very file."""
    return " ".join(rng.choices(WORDS, k=n_words))


def openai(rng: random.Random, number: int) -> dict[str, Any]:
    """A chat with calls of tools."""
    messages: list[dict[str, Any]] = [{"role": "system", "content": text(rng, 60)}, {"role": "user", "content": text(rng, 80)}]
    for turn in range(4):
        call = {"name": "run", "arguments": json.dumps({"command": text(rng, 12)})}
        messages.append({"role": "assistant", "content": text(rng, 40), "tool_calls": [{"id": f"c{turn}", "function": call}]})
        messages.append({"role": "tool", "tool_call_id": f"c{turn}", "content": text(rng, 120)})
    messages.append({"role": "assistant", "content": text(rng, 60)})
    return {"messages": messages, "instance_id": f"i{number}", "resolved": number % 3 == 0}


def negtraj(rng: random.Random, number: int) -> dict[str, Any]:
    """The same in the project's own format."""
    record = openai(rng, number)
    for message in record["messages"]:
        for call in message.get("tool_calls", ()):
            call |= call.pop("function")
    return {"question_id": f"q{number}", "messages": record["messages"][2:], "reward": record["resolved"]}


def nat(rng: random.Random, number: int) -> dict[str, Any]:
    """A ReAct episode as NAT writes it."""
    turns = [{"role": "user" if n % 2 else "assistant", "content": text(rng, 90)} for n in range(9)]
    return {"id": f"q{number}", "conversations": turns, "info": {"reward": number % 3 == 0, "pred": "x"}}


def atif(rng: random.Random, number: int) -> dict[str, Any]:
    """A trajectory with calls and results."""
    steps: list[dict[str, Any]] = [{"source": "user", "message": text(rng, 140)}]
    for turn in range(4):
        call = {"tool_call_id": f"c{turn}", "function_name": "run", "arguments": {"command": text(rng, 12)}}
        results = [{"source_call_id": f"c{turn}", "content": text(rng, 120)}]
        step = {"source": "agent", "message": text(rng, 40), "tool_calls": [call], "observation": {"results": results}}
        steps.append(step)
    numbered = [{"step_id": place, **step} for place, step in enumerate(steps, 1)]
    return {"schema_version": "ATIF-v1.7", "session_id": f"s{number}", "agent": {"name": "a"}, "steps": numbered}


def llamafactory(rng: random.Random, number: int) -> dict[str, Any]:
    """A conversation of speakers."""
    turns = [{"from": "gpt" if n % 2 else "human", "value": text(rng, 90)} for n in range(10)]
    return {"id": f"q{number}", "conversations": turns, "label": number % 3 == 0}


def verifiers(rng: random.Random, number: int) -> dict[str, Any]:
    """An episode with its reward."""
    turns = [{"role": "user" if n % 2 else "assistant", "content": text(rng, 90)} for n in range(9)]
    prompt = [{"role": "user", "content": text(rng, 90)}]
    return {"example_id": number, "prompt": prompt, "completion": turns, "reward": float(number % 3 == 0)}


def claude_code(rng: random.Random, number: int) -> list[dict[str, Any]]:
    """A session of 40 answers with calls of tools, a line each."""

    def line(at: int, role: str, content: Any) -> dict[str, Any]:
        answer = {"id": f"msg{at}", "model": "m"} if role == "assistant" else {}
        message = {"role": role, "content": content, **answer}
        parent = f"u{at - 1}" if at else None
        return {"type": role, "uuid": f"u{at}", "parentUuid": parent, "sessionId": f"s{number}", "message": message}

    lines = [line(0, "user", text(rng, 90))]
    for turn in range(40):
        call = {"type": "tool_use", "id": f"c{turn}", "name": "bash", "input": {"command": text(rng, 12)}}
        lines.append(line(len(lines), "assistant", [{"type": "text", "text": text(rng, 40)}, call]))
        result = {"type": "tool_result", "tool_use_id": f"c{turn}", "content": text(rng, 120)}
        lines.append(line(len(lines), "user", [result]))
    return [*lines, line(len(lines), "assistant", [{"type": "text", "text": text(rng, 40)}])]


def codex(rng: random.Random, number: int) -> list[dict[str, Any]]:
    """The same in rollout lines."""

    def item(kind: str, **payload: Any) -> dict[str, Any]:
        return {"timestamp": "t", "type": "response_item", "payload": {"type": kind, **payload}}

    def said(role: str, n_words: int) -> dict[str, Any]:
        kind = "output_text" if role == "assistant" else "input_text"
        return item("message", role=role, content=[{"type": kind, "text": text(rng, n_words)}])

    lines: list[dict[str, Any]] = [{"type": "session_meta", "payload": {"id": f"s{number}"}}, said("user", 90)]
    for turn in range(40):
        arguments = json.dumps({"command": text(rng, 12)})
        lines += [said("assistant", 40), item("function_call", name="shell", arguments=arguments, call_id=f"c{turn}")]
        lines.append(item("function_call_output", call_id=f"c{turn}", output=text(rng, 120)))
    return [*lines, said("assistant", 40)]


def session_trace(rng: random.Random, number: int) -> list[dict[str, Any]]:
    """Messages of a session, each with the one before it."""
    lines: list[dict[str, Any]] = [{"type": "session", "version": 3, "id": f"s{number}"}]
    for turn in range(60):
        message = {"role": "assistant" if turn % 2 else "user", "content": [{"type": "text", "text": text(rng, 90)}]}
        lines.append({"type": "message", "id": f"m{turn}", "parentId": f"m{turn - 1}" if turn else None, "message": message})
    return lines


def inspect(rng: random.Random, number: int) -> list[dict[str, Any]]:
    """A log of eight samples."""
    samples = []
    for sample in range(8):
        messages: list[dict[str, Any]] = [{"role": "user", "content": text(rng, 90)}]
        for turn in range(6):
            call = {"id": f"c{turn}", "function": "bash", "arguments": {"command": text(rng, 12)}}
            messages.append({"role": "assistant", "content": text(rng, 40), "tool_calls": [call]})
            messages.append({"role": "tool", "tool_call_id": f"c{turn}", "content": text(rng, 120)})
        messages.append({"role": "assistant", "content": text(rng, 40)})
        scores = {"match": {"value": "C" if sample % 3 else "I", "answer": "a"}}
        samples.append({"id": sample, "epoch": number, "target": "a", "messages": messages, "scores": scores})
    return [{"version": 2, "eval": {"task": "t", "model": "m", "run_id": f"r{number}"}, "samples": samples}]


def langfuse(rng: random.Random, number: int) -> list[dict[str, Any]]:
    """A trace of six generations, each with all that was said before."""
    lines: list[dict[str, Any]] = []
    sent: list[dict[str, Any]] = [{"role": "user", "content": text(rng, 90)}]
    for turn in range(6):
        answer = text(rng, 90)
        times = {"type": "GENERATION", "startTime": f"2026-01-0{turn + 1}"}
        trace = {"id": f"g{number}-{turn}", "traceId": f"t{number}", **times}
        lines.append({**trace, "model": "m", "input": list(sent), "output": answer})
        sent += [{"role": "assistant", "content": answer}, {"role": "user", "content": text(rng, 90)}]
    return lines


MAKERS: dict[str, Callable[[random.Random, int], dict[str, Any]]] = {
    "negtraj": negtraj,
    "nat": nat,
    "openai": openai,
    "atif": atif,
    "llamafactory": llamafactory,
    "verifiers": verifiers,
}
FILE_MAKERS: dict[str, Callable[[random.Random, int], list[dict[str, Any]]]] = {
    "claude_code": claude_code,
    "codex": codex,
    "session_trace": session_trace,
    "inspect": inspect,
    "langfuse": langfuse,
}
"""Of formats in which a file is one document, a line for each object."""


def write(path: Path, name: str, n_bytes: int) -> int:
    """A file of records, one of a hundred bad; how many records it has."""
    rng, n, size = random.Random(0), 0, 0
    with path.open("w", encoding="utf-8") as file:
        while size < n_bytes:
            line = BAD[n // 100 % len(BAD)] if n % 100 == 0 else json.dumps(MAKERS[name](rng, n))
            size += file.write(line + "\n")
            n += 1
    return n


def write_files(folder: Path, name: str, n_bytes: int) -> int:
    """Files of one document each; how many."""
    rng, n, size = random.Random(0), 0, 0
    while size < n_bytes:
        lines = FILE_MAKERS[name](rng, n)
        written = "".join(json.dumps(line) + "\n" for line in lines)
        ending = "json" if len(lines) == 1 else "jsonl"
        size += (folder / f"{n:06}.{ending}").write_text(written, encoding="utf-8")
        n += 1
    return n


def reworded(value: Any, number: int) -> Any:
    """The document with a number behind every text of some words that is no JSON, so that no copy is another's."""
    if isinstance(value, dict):
        return {key: reworded(inner, number) for key, inner in value.items()}
    if isinstance(value, list):
        return [reworded(inner, number) for inner in value]
    is_prose = isinstance(value, str) and value.count(" ") > 5 and value.lstrip()[:1] not in ("{", "[", "<")
    return f"{value} {number}" if is_prose else value


def of_trace(spans: Any, number: int) -> list[Any]:
    """The spans of one trace as those of another one."""
    renamed = re.sub(r'("trace_?id": ")', rf"\g<1>{number:06x}", json.dumps(spans), flags=re.IGNORECASE)
    parsed = json.loads(renamed)
    return parsed if isinstance(parsed, list) else [parsed]


def write_copies(folder: Path, name: str, file: Path, n_bytes: int, n_traces: int) -> int:
    """A real file's documents again and again, so many traces into a file that is one; how many documents there are."""
    from negtraj_dagster.rollouts.formats import FORMATS

    text = file.read_text(encoding="utf-8")
    is_lines = file.suffix == ".jsonl"
    whole = [json.loads(line) for line in text.splitlines()] if is_lines else json.loads(text)
    n = size = 0
    if FORMATS[name].unit == "file":
        while size < n_bytes:
            copy = reworded(whole, n)
            if n_traces > 1:
                copy = [span for trace in range(n_traces) for span in of_trace(reworded(whole, n * n_traces + trace), trace)]
            written = "".join(json.dumps(line) + "\n" for line in copy) if is_lines else json.dumps(copy)
            size += (folder / f"{n:06}{file.suffix}").write_text(written, encoding="utf-8")
            n += 1
        return n
    documents = whole if isinstance(whole, list) else [whole]
    with (folder / "copies.jsonl").open("w", encoding="utf-8") as lines:
        while size < n_bytes:
            size += lines.write(json.dumps(reworded(documents[n % len(documents)], n)) + "\n")
            n += 1
    return n


def read(home: Path, folder: Path, name: str, redacted: bool) -> None:
    """In a process of its own: read once from nothing and once more, and print what it took."""
    from negtraj_dagster.rollouts.read import read_landed_files
    from negtraj_dagster.settings import RedactionSettings, RolloutSource, Settings
    from negtraj_dagster.store import Store

    source = RolloutSource(task="wordtraps", format=name, path=folder)
    settings = Settings(home=home, sources={"bench": source}, redaction=RedactionSettings(enabled=redacted))
    started = time.perf_counter()
    raw = read_landed_files(Store(home), settings)
    first = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    started = time.perf_counter()
    read_landed_files(Store(home), settings)
    again = time.perf_counter() - started
    counts = {"n_rollouts": raw.content["n_rollouts"], "n_quarantined": raw.details["n_quarantined"]}
    print(json.dumps({"seconds": first, "again_seconds": again, "peak_bytes": peak, "parse": parse_speed(folder), **counts}))


def parse_speed(folder: Path) -> float:
    """Bytes a second that Python's `json` alone parses of the same files: how fast this core is just now."""
    n_bytes, started = 0, time.perf_counter()
    for path in sorted(folder.iterdir()):
        with path.open("rb") as file:
            for line in [file.read()] if path.suffix in (".json", ".traj") else file:
                n_bytes += len(line)
                if n_bytes > 20_000_000:
                    break
                with contextlib.suppress(ValueError):
                    json.loads(line)
        if n_bytes > 20_000_000:
            break
    return n_bytes / (time.perf_counter() - started)


def measure(name: str, n_bytes: int, *, file: Path | None = None, n_traces: int = 1, redacted: bool = True) -> dict[str, Any]:
    """What reading new files of this format costs."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "files").mkdir()
        if file is None and name in FILE_MAKERS:
            n_records = write_files(root / "files", name, n_bytes)
        elif file is None:
            n_records = write(root / "files" / "a.jsonl", name, n_bytes)
        else:
            n_records = write_copies(root / "files", name, file, n_bytes, n_traces)
        size = sum(path.stat().st_size for path in (root / "files").iterdir())
        line = [sys.executable, __file__, "--read", str(root / "home"), str(root / "files"), name, str(int(redacted))]
        environment = {**os.environ, "POLARS_MAX_THREADS": "1"}
        done = subprocess.run(["taskset", "-c", "0", *line], capture_output=True, text=True, env=environment, check=True)
        return {"records": n_records, "bytes": size, **json.loads(done.stdout.splitlines()[-1])}


def main(arguments: list[str]) -> None:
    """Print a line a format."""
    if arguments[:1] == ["--read"]:
        home, folder, name, redacted = arguments[1:]
        read(Path(home), Path(folder), name, redacted == "1")
        return
    megabytes = float(arguments[0]) if arguments else 50
    for argument in arguments[1:] or (*MAKERS, *FILE_MAKERS):
        name, path, traces = (*argument.split(":"), "", "")[:3]
        file, n_traces = Path(path) if path else None, int(traces or 1)
        base = measure(name, 1_000_000, file=file, n_traces=n_traces)
        for redacted in (True, False) if argument == "openai" else (True,):
            found = measure(name, int(megabytes * 1e6), file=file, n_traces=n_traces, redacted=redacted)
            print(
                json.dumps(
                    {
                        "format": name,
                        **({"file": file.name} if file else {}),
                        "redacted": redacted,
                        "MB": round(found["bytes"] / 1e6, 1),
                        "records": found["records"],
                        "rollouts": found["n_rollouts"],
                        "quarantined": found["n_quarantined"],
                        "seconds": round(found["seconds"], 2),
                        "MB_per_s": round(found["bytes"] / 1e6 / found["seconds"], 1),
                        "json_loads_MB_per_s": round(found["parse"] / 1e6, 1),
                        "again_seconds": round(found["again_seconds"], 3),
                        "peak_MB": round(found["peak_bytes"] / 1e6),
                        "peak_MB_above_1_MB": round((found["peak_bytes"] - base["peak_bytes"]) / 1e6),
                    }
                ),
                flush=True,
            )


if __name__ == "__main__":
    main(sys.argv[1:])
