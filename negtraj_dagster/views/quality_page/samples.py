"""Rejected rollouts for people to look at, as Markdown: five a reason, the step that gave the reason marked."""

import json
from collections.abc import Iterator
from typing import Any

import polars as pl

from negtraj_dagster.printable import markdown_text

MAX_TURN_CHARS = 200
MAX_TURNS = 8
MAX_REASONS_BYTES = 120_000


def samples_in_markdown(samples: pl.DataFrame) -> str:
    """One heading a filter, a paragraph a rollout.

    Args:
        samples: filter, reason, rollout_key, question_id, label, source, step, detail, conversation (JSON text).
    """
    parts: list[str] = []
    n_bytes, last = 0, ""
    for row in samples.sort("filter", maintain_order=True).iter_rows(named=True):
        if row["filter"] != last:
            parts.append(f"\n#### {row['filter']}: {_shown(row['reason'])}\n")
        last = row["filter"]
        paragraph = "\n".join(_paragraph(row))
        n_bytes += len(paragraph.encode())
        if n_bytes > MAX_REASONS_BYTES:
            parts.append("\nMore stand in the file of rejected samples and in the quality page.")
            break
        parts.append(paragraph)
    return "\n".join(parts) or "none"


def _paragraph(row: dict[str, Any]) -> Iterator[str]:
    where = f", step {row['step']}" if row["step"] is not None else ""
    about = f"{row['label']}, question {_shown(row['question_id'])}{where}: {_shown(row['detail'] or '')}"
    yield f"- `{row['rollout_key'][:12]}` {about}"
    for turn, step in _turns(row["conversation"], row["step"]):
        mark = "**▶** " if step == row["step"] and turn["role"] == "assistant" else ""
        turn_text = " ".join(filter(None, (turn.get("content"), *(_call(call) for call in turn.get("tool_calls", ())))))
        yield f"    - {mark}{turn['role']}: {_shown(turn_text)}"


def _turns(conversation: str, marked: int | None) -> list[tuple[dict[str, Any], int]]:
    """Some turns with their steps: the first, or those around the marked step."""
    step, numbered = 0, []
    for turn in json.loads(conversation):
        step += turn["role"] == "assistant"
        numbered.append((turn, step))
    first = 0
    if marked is not None:
        first = max(0, next((place for place, (_, at) in enumerate(numbered) if at == marked), 0) - MAX_TURNS // 2)
    return numbered[first : first + MAX_TURNS]


def _call(call: dict[str, Any]) -> str:
    return f"{call['name']}({call['arguments']})"


def _shown(text: str) -> str:
    return markdown_text(f"{text[:MAX_TURN_CHARS]}…" if len(text) > MAX_TURN_CHARS else text)
