"""Registry of strategies: how a rollout and its class become a conditioned conversation, and how the model is asked later."""

from negtraj_dagster.strategies.base import Prompter, Strategy
from negtraj_dagster.strategies.nat import NAT
from negtraj_dagster.strategies.untagged import NUT, VANILLA

STRATEGIES: dict[str, Strategy] = {strategy.name: strategy for strategy in (VANILLA, NUT, NAT)}

__all__ = ["STRATEGIES", "Prompter", "Strategy"]
