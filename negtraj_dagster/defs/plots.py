"""Small pictures and previews for the UI's metadata panes, as Markdown."""

import base64
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import dagster as dg

from negtraj_dagster.printable import visible
from negtraj_dagster.reports.plots import line_plot
from negtraj_dagster.reports.summarize import turn_text
from negtraj_dagster.shards.preview import marked_text
from negtraj_dagster.store import read_json_lines

N_EPISODES = 3
"""Of each class."""


def loss_curve_markdown(curves: Mapping[str, Sequence[Sequence[float]]]) -> str:
    """The loss curve as an inline SVG image, with those of its classes and of what is held out."""
    svg = line_plot({name: [(x, y) for x, y in points] for name, points in curves.items()}, x_label="step", y_label="loss")
    return f"![loss curve](data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()})"


def preview_markdown(path: Path) -> dg.MarkdownMetadataValue:
    """The first training rows of each class as the trainer reads them, trained stretches in ⟦ ⟧."""
    blocks = []
    for row in json.loads(path.read_text(encoding="utf-8")):
        heading = f"**{row['class']}** · rollout `{row['rollout_key'][:12]}`"
        size = f"{row['n_trained']} of {row['n_tokens']} tokens trained"
        blocks.append(f"{heading} · {size}\n\n{_fenced(visible(marked_text(row['stretches']))[:3000])}")
    return dg.MetadataValue.md("\n\n".join(blocks))


def _fenced(text: str) -> str:
    """A code block that its own text cannot close: rollouts may hold any Markdown."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text}\n{fence}"


def episodes_markdown(path: Path) -> str:
    """The first episodes of each class, those that went wrong first, turn by turn."""
    blocks = []
    n_of_class: Counter[str] = Counter()
    rows = sorted(read_json_lines(path), key=lambda row: row["strict"])
    for episode in rows:
        n_of_class[episode["error_class"]] += 1
        if n_of_class[episode["error_class"]] > N_EPISODES:
            continue
        turns = "\n".join(f"{turn['role']}: {turn_text(turn)}" for turn in episode["turns"])
        question_id = str(episode["question_id"]).replace("`", "'")
        blocks.append(f"**{episode['error_class']}** · question `{question_id}`\n\n{_fenced(turns[:2000])}")
    return "\n\n".join(blocks)
