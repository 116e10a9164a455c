"""Saves the state of a training between steps, also when a signal asks for it, and goes on from the newest one that is whole.

Weights, optimizer and fp32 master weights are DeepSpeed's to save and load; beside them stand the random states of each rank
and the curve. `checkpoints.states` publishes and proves what is written here.
"""

import logging
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from negtraj_dagster.checkpoints.light_deepspeed import LossScaler, TorchCheckpointEngine, ZeroStageEnum, fragment_address
from negtraj_dagster.checkpoints.states import State, StatePlace, begin_state, newest_state, publish_state, unfinished_folder
from negtraj_dagster.checkpoints.world import World
from negtraj_dagster.errors import TrainingError

LOG = logging.getLogger(__name__)

ENGINE = "engine"
"""DeepSpeed's folder in a state's."""
ALLOWED = [ZeroStageEnum, LossScaler, fragment_address]
"""The only classes that DeepSpeed's files may name."""
CONVERTER = (sys.executable, "-m", "deepspeed.checkpoint.ds_to_universal", "--inject_missing_state")
ONE_WORKER = ("--num_extract_workers", "1", "--num_merge_workers", "1")
SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
"""By which whoever runs a machine asks for it back; Ctrl-C and the end of a Dagster run reach ranks as SIGTERM, too."""


class TrainingPausedError(Exception):
    """A signal came; the state after the last step is saved, and another attempt goes on from it."""


class TensorsOnly(TorchCheckpointEngine):  # type: ignore[misc]
    """DeepSpeed's writer, and a reader that takes nothing but tensors, plain values and `ALLOWED` from a file."""

    def load(self, path: str, map_location: Any = None) -> Any:
        """What `save` wrote."""
        with torch.serialization.safe_globals(ALLOWED):
            return torch.load(path, map_location=map_location, weights_only=True)  # noqa: TID251 - reads no other pickles


def _part_counts(optimizer: torch.optim.Optimizer) -> None:
    """Give every tensor its own count of steps: of a universal state ZeRO-3 loads one for all, and each would count it up."""
    for parameter, state in optimizer.state.items():
        if torch.is_tensor(state.get("step")):
            state["step"] = state["step"].to(parameter.device, copy=True)


class Signals:
    """Those that came since `listen`; the keeper answers them after a step."""

    def __init__(self) -> None:
        self.last = 0

    def listen(self) -> None:
        """From here on a signal ends nothing by itself."""
        for number in SIGNALS:
            signal.signal(number, self._note)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self.last = number


class StateKeeper:
    """Keeps the states of one training. Every rank has one, and calls it at the same steps.

    Args:
        place: where they go.
        world: this process.
        signals: those that came to it.
        has_frozen: whether weights that are not trained are left out; they are the base model's.
        made_by: what another attempt has to have alike, or else cannot load what DeepSpeed saved.

    Attributes:
        is_packed: whether rows were packed so far; None where that is still to be measured.
    """

    def __init__(
        self, place: StatePlace, world: World, signals: Signals, *, has_frozen: bool, made_by: Mapping[str, Any]
    ) -> None:
        self._place, self._world, self._has_frozen = place, world, has_frozen
        self._made_by = dict(made_by)
        self._signals = signals
        self._state: State | None = None
        self.is_universal = False
        self.is_packed: bool | None = None

    def find(self) -> None:
        """Choose the state to go on from, before the engine is started: `is_universal` says how.

        Raises:
            TrainingError: the newest state was made with another stage or number format.
        """
        self._state = self._agree_on_state()
        if self._state is None:
            return
        differing = {name: value for name, value in self._made_by.items() if self._state.made_by.get(name) != value}
        if differing.keys() - {"ranks"}:
            named = ", ".join(f"{name} = {self._state.made_by.get(name)!r}, now {value!r}" for name, value in differing.items())
            raise TrainingError(
                f"{self._state.folder}: was made with {named}. Go on with the settings it was made with, or delete "
                f"{self._place.folder} to train from the beginning"
            )
        self.is_packed = self._state.made_by.get("is_packed")
        # without ZeRO every rank has all of it, so that nothing is to be converted
        self.is_universal = bool(differing) and self._made_by["zero_stage"] > 0

    def resume(self, engine: Any) -> list[dict[str, Any]]:
        """Load what was found into the engine; the curve up to it, empty where there was nothing.

        Raises:
            TrainingError: DeepSpeed cannot load it.
        """
        engine.checkpoint_engine = TensorsOnly()
        state = self._state
        if state is None:
            return []
        folder = self._universal(state) if self.is_universal else state.folder
        # of a universal state ZeRO-3 gives every group what the first one has
        settings = [
            {name: value for name, value in group.items() if name != "params"} for group in engine.optimizer.param_groups
        ]
        loaded, _ = engine.load_checkpoint(
            str(folder), tag=ENGINE, load_module_strict=not self._has_frozen, load_lr_scheduler_states=False
        )
        for group, own in zip(engine.optimizer.param_groups, settings, strict=True):
            group.update(own)
        if self.is_universal:
            _part_counts(engine.optimizer.optimizer)
        self._world.wait_for_all()
        if self._world.rank == 0 and self.is_universal:
            shutil.rmtree(folder)
        if loaded is None:
            raise TrainingError(f"{state.folder}: DeepSpeed found nothing to load; delete it to go on from an older state")
        if (random_file := self._random_file(state.folder)).is_file():  # none for a rank more than there were
            random_states = load_file(random_file)
            torch.set_rng_state(random_states["cpu"])
            if self._world.device.type == "cuda":
                torch.cuda.set_rng_state(random_states["cuda"], self._world.device)
        if self._world.rank == 0:
            LOG.info("training goes on behind step %d, from %s", state.step, state.folder)
        return state.curve()

    def after_step(self, engine: Any, curve: Sequence[Any], *, is_last: bool) -> None:
        """Save the state where it is time, or where a signal came to any rank.

        Args:
            engine: DeepSpeed's.
            curve: dataclasses, one a step so far.
            is_last: whether the training ends with this step: it is exported then, so that no state is due.

        Raises:
            TrainingPausedError: a signal came, and the state is saved.
        """
        step = len(curve)
        is_asked = self._is_asked()
        is_due = self._place.every_steps > 0 and step % self._place.every_steps == 0 and not is_last
        if not (is_asked or is_due):
            return
        self._save(engine, curve)
        if is_asked:
            raise TrainingPausedError(f"step {step}: a signal asked the training to end; its state is saved")

    def _save(self, engine: Any, curve: Sequence[Any]) -> None:
        step = len(curve)
        if self._world.rank == 0:
            begin_state(self._place, step)
        self._world.wait_for_all()
        folder = unfinished_folder(self._place, step)
        engine.save_checkpoint(str(folder), tag=ENGINE, save_latest=False, exclude_frozen_parameters=self._has_frozen)
        random_states = {"cpu": torch.get_rng_state()}
        if self._world.device.type == "cuda":
            random_states["cuda"] = torch.cuda.get_rng_state(self._world.device)
        save_file(random_states, self._random_file(folder))
        self._world.wait_for_all()
        if self._world.rank == 0:
            made_by = {**self._made_by, "is_packed": self.is_packed}
            publish_state(self._place, step, [asdict(record) for record in curve], made_by)
        self._world.wait_for_all()  # a rank that ended before would end the one that publishes

    def _universal(self, state: State) -> Path:
        """The state in the layout that any number of ranks can load."""
        made: list[str | None] = [None]
        if self._world.rank == 0:
            made = [self._convert(state)]
        if self._world.ranks > 1:
            torch.distributed.broadcast_object_list(made, src=0, device=self._world.device)
        return Path(str(made[0]))

    def _convert(self, state: State) -> str:
        """A folder that no other attempt, and nobody who planted a file, has written to."""
        self._check_names(state.folder / ENGINE)
        folder = tempfile.mkdtemp(prefix=f".{state.folder.name}.universal-", dir=self._place.folder)
        paths = ("--input_folder", str(state.folder / ENGINE), "--output_folder", str(Path(folder) / ENGINE))
        done = subprocess.run([*CONVERTER, *ONE_WORKER, *paths], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            shutil.rmtree(folder, ignore_errors=True)
            raise TrainingError(
                f"{state.folder}: of {state.made_by['ranks']} ranks, could not be converted for {self._world.ranks}: "
                f"{done.stderr.strip()[-500:]}. Run again; if it fails again, go on with {state.made_by['ranks']} ranks, or "
                f"delete {self._place.folder}"
            )
        return folder

    def _check_names(self, folder: Path) -> None:
        """Read every file that DeepSpeed's converter, which unpickles anything, might.

        Raises:
            TrainingError: there is one that DeepSpeed does not write.
        """
        for path in sorted(folder.rglob("*")):
            if path.parent != folder or path.suffix != ".pt" or not path.is_file():
                raise TrainingError(f"{path}: not a file that a state has; delete {folder.parent}")
            TensorsOnly().load(str(path), map_location="cpu")

    def _agree_on_state(self) -> State | None:
        """One rank looks for it and hashes it, for all."""
        found = [newest_state(self._place) if self._world.rank == 0 else None]
        if self._world.ranks > 1:
            torch.distributed.broadcast_object_list(found, src=0, device=self._world.device)
        return found[0]

    def _is_asked(self) -> bool:
        if self._world.ranks == 1:
            return self._signals.last != 0
        asked = torch.tensor([self._signals.last], device=self._world.device)
        torch.distributed.all_reduce(asked, op=torch.distributed.ReduceOp.MAX)
        return bool(asked.item())

    def _random_file(self, folder: Path) -> Path:
        return folder / f"random-{self._world.rank}.safetensors"
