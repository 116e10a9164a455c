"""What is written of a training step by step: `curve.jsonl`, the line of progress, and what both say in sum."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from negtraj_dagster.progress import clock_text

FINAL_LOSS_STEPS = 50
PLOTTED_POINTS = 120


@dataclass(frozen=True)
class StepRecord:
    """One line of curve.jsonl: `rows`, `tokens` and `trained_tokens` over all ranks, `seconds` since the loop began.

    Attributes:
        loss: sum of weight x cross-entropy of the step's targets over the sum of weights, before the step.
        loss_by_class: the same of each class's rows.
        grad_norm: before clipping.
        heldout_loss: of the questions that are held out, after the step; None where it was not measured then.
        heldout_by_class: the same of each class's rows.
    """

    step: int
    loss: float
    loss_by_class: Mapping[str, float]
    lr: float
    grad_norm: float
    rows: int
    tokens: int
    trained_tokens: int
    seconds: float
    heldout_loss: float | None = None
    heldout_by_class: Mapping[str, float] | None = None


def progress_line(curve: Sequence[StepRecord], steps: int) -> str:
    """`step 400/2000 loss 0.312 (negative 0.340, positive 0.271) lr 1.8e-03 24.1k tok/s grad_norm 0.84 0:31 left`."""
    last = curve[-1]
    tokens_per_s = sum(record.tokens for record in curve) / max(last.seconds, 1e-9)
    left_s = last.seconds / last.step * (steps - last.step)
    heldout = "" if last.heldout_loss is None else f"held out {last.heldout_loss:.3f}{by_class(last.heldout_by_class)} "
    return (
        f"step {last.step}/{steps} loss {last.loss:.3f}{by_class(last.loss_by_class)} {heldout}lr {last.lr:.1e} "
        f"{tokens_per_s / 1000:.1f}k tok/s grad_norm {last.grad_norm:.2f} {clock_text(left_s)} left"
    )


def by_class(losses: Mapping[str, float] | None) -> str:
    """` (negative 0.340, positive 0.271)`; nothing where there is one class, whose loss is the whole one."""
    if losses is None or len(losses) < 2:
        return ""
    return f" ({', '.join(f'{name} {loss:.3f}' for name, loss in sorted(losses.items()))})"


def totals(curve: Sequence[StepRecord], *, n_rows: int, batch_size: int) -> dict[str, Any]:
    """What result.json says of all steps together; losses by class are means of the last steps that had such rows."""
    n_tokens, n_trained = (sum(counts) for counts in zip(*((r.tokens, r.trained_tokens) for r in curve), strict=True))
    last = curve[-FINAL_LOSS_STEPS:]
    classes = sorted({name for record in last for name in record.loss_by_class})
    steps_per_epoch = math.ceil(n_rows / batch_size)
    whole, rest = divmod(len(curve), steps_per_epoch)
    return {
        "steps": len(curve),
        "epochs": round(whole + rest / steps_per_epoch, 4),
        "rows_seen": sum(record.rows for record in curve),
        "tokens": n_tokens,
        "trained_tokens": n_trained,
        "trained_share": n_trained / n_tokens,
        "first_loss": curve[0].loss,
        "final_loss": mean([record.loss for record in last]),
        "final_loss_by_class": {
            name: mean([record.loss_by_class[name] for record in last if name in record.loss_by_class]) for name in classes
        },
        **heldout_totals(curve),
        "seconds": curve[-1].seconds,
        "tokens_per_s": n_tokens / max(curve[-1].seconds, 1e-9),
    }


def heldout_totals(curve: Sequence[StepRecord]) -> dict[str, Any]:
    """The last loss of held-out questions, and the lowest with its step; nothing where none was measured."""
    measured = [(record.heldout_loss, record.step) for record in curve if record.heldout_loss is not None]
    if not measured:
        return {}
    lowest, step = min(measured)
    return {
        "heldout_loss": measured[-1][0],
        "heldout_by_class": dict(curve[-1].heldout_by_class or {}),
        "lowest_heldout_loss": lowest,
        "lowest_heldout_step": step,
    }


def mean(values: Sequence[float]) -> float:
    """Of at least one."""
    return sum(values) / len(values)


def thin_curves(records: Sequence[Mapping[str, Any]], n_points: int = PLOTTED_POINTS) -> dict[str, list[list[float]]]:
    """Curves for a plot, each of at most `n_points` of (step, loss): means over steps that follow one another.

    `loss` is of all rows; where there are several classes each has one of its name; `held out` as often as it was measured.
    """
    classes = sorted({name for record in records for name in record["loss_by_class"]})
    values = {
        "loss": [(record["step"], record["loss"]) for record in records],
        **{
            name: [(record["step"], record["loss_by_class"][name]) for record in records if name in record["loss_by_class"]]
            for name in (classes if len(classes) > 1 else ())
        },
        "held out": [(record["step"], record["heldout_loss"]) for record in records if record["heldout_loss"] is not None],
    }
    return {name: _thinned(points, n_points) for name, points in values.items() if points}


def _thinned(points: Sequence[tuple[int, float]], n_points: int) -> list[list[float]]:
    stride = max(1, -(-len(points) // n_points))
    groups = [points[start : start + stride] for start in range(0, len(points), stride)]
    return [[group[-1][0], round(mean([loss for _, loss in group]), 5)] for group in groups]
