"""The learning rate rises to its peak and ends where the settings say."""

import pytest

from negtraj_dagster.checkpoints.schedule import learning_rate
from negtraj_dagster.recipes import TrainingSettings


def rates(steps: int, **settings) -> list[float]:
    whole = TrainingSettings(**{"steps": steps, "lr": 0.1, "warmup_share": 0.2, "min_lr_share": 0.1, **settings})
    return [learning_rate(step, whole) for step in range(steps)]


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
def test_the_warm_up_ends_at_the_peak(schedule: str) -> None:
    assert rates(20, schedule=schedule)[:4] == pytest.approx([0.025, 0.05, 0.075, 0.1])


@pytest.mark.parametrize(
    ("schedule", "middle", "last"), [("cosine", 0.055, 0.01), ("linear", 0.055, 0.01), ("constant", 0.1, 0.1)]
)
def test_the_way_down_begins_behind_the_warm_up_and_ends_at_the_least_share(schedule: str, middle: float, last: float) -> None:
    of_all = rates(20, schedule=schedule)
    assert of_all[11] == pytest.approx(middle)  # half of 16 steps behind the warm-up
    assert of_all[-1] == pytest.approx(last)
    assert of_all[3:] == sorted(of_all[3:], reverse=True)


@pytest.mark.parametrize("share", [0.0, 1.0])
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_trainings_of_a_few_steps_and_all_or_no_warm_up_have_a_rate(steps: int, share: float) -> None:
    of_all = rates(steps, warmup_share=share)
    assert all(0 < rate <= 0.1 for rate in of_all)
    assert max(of_all) == 0.1
