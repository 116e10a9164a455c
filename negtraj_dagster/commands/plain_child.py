"""Children of commands: their progress goes to the terminal, no Dagster run hears of them."""

from pathlib import Path

from negtraj_dagster.devices import child_devices, hold_devices
from negtraj_dagster.launch import run_child


def run_on_processor(module: str, config: Path, ranks: int, threads: int) -> None:
    """Run a child that needs no GPU, and waits for none."""
    run_child(module, config, ranks=ranks, threads=threads, extra_env={"CUDA_VISIBLE_DEVICES": ""})


def run_plainly(module: str, config: Path, ranks: int, threads: int) -> None:
    """Run `python -m module config` and wait for it; trainings hold their devices meanwhile, and so does this."""
    with hold_devices(child_devices(ranks), module.rpartition(".")[2]):
        run_child(module, config, ranks=ranks, threads=threads)
