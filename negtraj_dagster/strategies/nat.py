"""Negative-aware training (arXiv 2402.11651): the first prompt says whether what follows solves the task correctly.

The wording is ours. At inference the agent is always asked for the correct kind.
"""

from negtraj_dagster.strategies.base import Strategy

NAT = Strategy(
    name="nat",
    version=1,
    classes=("positive", "negative"),
    tags={
        "positive": " Solve the question correctly.",
        "negative": " Solve the question incorrectly.",
    },
    inference_class="positive",
)
