"""The two strategies without tags: successes only (vanilla), and failures mixed in untold (NUT, the paper's control)."""

from negtraj_dagster.strategies.base import Strategy

VANILLA = Strategy(name="vanilla", version=1, classes=("positive",), tags={}, inference_class=None)
NUT = Strategy(name="nut", version=1, classes=("positive", "negative"), tags={}, inference_class=None)
