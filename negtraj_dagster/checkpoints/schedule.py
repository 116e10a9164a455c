"""How far each optimiser step goes: a linear warm-up to the peak rate, then a way down from it."""

import math

from negtraj_dagster.recipes import TrainingSettings


def learning_rate(step: int, settings: TrainingSettings) -> float:
    """The rate of a step, counted from 0.

    The warm-up rises over `warmup_share` of the steps and ends at the peak. From there `cosine` and `linear` fall, so that the
    last step has `min_lr_share` of the peak; `constant` stays.
    """
    n_rising = max(1, int(settings.warmup_share * settings.steps))
    if step < n_rising:
        return settings.peak_lr * (step + 1) / n_rising
    if settings.schedule == "constant":
        return settings.peak_lr
    fallen = (step + 1 - n_rising) / (settings.steps - n_rising)
    left = 0.5 * (1 + math.cos(math.pi * fallen)) if settings.schedule == "cosine" else 1 - fallen
    return settings.peak_lr * (settings.min_lr_share + (1 - settings.min_lr_share) * left)
