"""Small pictures and previews for the UI's metadata panes, as Markdown."""

import base64
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import dagster as dg

from negtraj_dagster.printable import visible
from negtraj_dagster.reports.plots import line_plot
from negtraj_dagster.shards.preview import marked_text
from negtraj_dagster.store import read_json_lines

N_EPISODES = 6


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
    """The first evaluated episodes, right and wrong, turn by turn."""
    blocks = []
    for episode in read_json_lines(path)[:N_EPISODES]:
        verdict = "right" if episode["strict"] else "wrong"
        turns = "\n".join(f"{turn['role']}: {turn['content']}" for turn in episode["turns"])
        blocks.append(f"**{verdict}** · question `{episode['question_id']}`\n\n{_fenced(turns[:2000])}")
    return "\n\n".join(blocks)
