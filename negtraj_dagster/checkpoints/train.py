"""Trains a checkpoint: base model + token rows -> exported model, loss curve, result. One process per rank.

Run as a child: `python -m negtraj_dagster.checkpoints.train CONFIG.json` (`launch.run_child` sets the environment).
The loop is ours, on `deepspeed.initialize`: the same code on one CPU process, several, or GPUs. Files in `out_dir`:
`model/`, `adapter/` (LoRA), `curve.jsonl`, `card.json`, and `result.json` last.
"""

import json
import logging
import math
import resource
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import transformers

from negtraj_dagster import launch
from negtraj_dagster.chat_templates import ChatTemplate
from negtraj_dagster.checkpoints.curve import StepRecord, progress_line, totals
from negtraj_dagster.checkpoints.dataset import Row, load_rows, name_rows, plan_steps, rank_share, step_weight
from negtraj_dagster.checkpoints.export import export_model
from negtraj_dagster.checkpoints.light_deepspeed import deepspeed
from negtraj_dagster.checkpoints.loggers import Log, Tracked, check_loggers, no_log, open_loggers
from negtraj_dagster.checkpoints.losses import hold_out, measure_loss
from negtraj_dagster.checkpoints.memory import check_fits, estimate_memory
from negtraj_dagster.checkpoints.packing import keeps_rows_apart, pack_share, use_fast_attention
from negtraj_dagster.checkpoints.resume import Signals, StateKeeper, TrainingPausedError
from negtraj_dagster.checkpoints.schedule import learning_rate
from negtraj_dagster.checkpoints.serving import read_end_tokens
from negtraj_dagster.checkpoints.states import StatePlace
from negtraj_dagster.checkpoints.world import World
from negtraj_dagster.checkpoints.zero import Lora, StepResult, build_module, check_ids, start_engine, start_world, train_step
from negtraj_dagster.errors import TrainingError
from negtraj_dagster.modeling import check_base_model
from negtraj_dagster.progress import Say, open_progress
from negtraj_dagster.recipes import TrainingSettings
from negtraj_dagster.store import replace_text
from negtraj_dagster.trainable import check_trainable

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """A training run as its config file describes it."""

    out_dir: Path
    base_model_dir: Path
    index_path: Path
    segment_paths: tuple[Path, ...]
    training: TrainingSettings
    card: Mapping[str, Any]
    states: StatePlace | None
    tracked: Tracked | None


def main(config_path: Path) -> None:
    """Train what a config file describes, in this process's rank."""
    launch.die_with_parent()
    signals = Signals()
    quiet_libraries()
    job = read_job(config_path)
    if job.states is not None:
        signals.listen()  # before anything slow
    with open_progress() as say:
        paused = _train_or_pause(job, say, signals)  # within: Dagster would be told of an exception that leaves it
    if paused:
        LOG.info("%s", paused)
        torch.distributed.destroy_process_group()
        sys.exit(launch.PAUSED)


def _train_or_pause(job: Job, say: Say, signals: Signals) -> str:
    """Empty where the training has ended, else what made it pause."""
    try:
        train(job, say, signals)
    except TrainingPausedError as paused:
        return str(paused)
    return ""


def read_job(config_path: Path) -> Job:
    """Read a config file.

    Raises:
        TrainingError: missing or unknown training settings, by name.
    """
    config = json.loads(config_path.read_text(encoding="utf-8"))
    fields, given_fields = TrainingSettings.model_fields.keys() - {"warm_start"}, config["training"].keys()
    if fields != given_fields:
        raise TrainingError(
            f"{config_path}, training: missing {sorted(fields - given_fields)}, unknown {sorted(given_fields - fields)}; "
            "expected exactly the fields of recipes.TrainingSettings"
        )
    return Job(
        out_dir=Path(config["out_dir"]),
        base_model_dir=Path(config["base_model_dir"]),
        index_path=Path(config["index_path"]),
        segment_paths=tuple(Path(path) for path in config["segment_paths"]),
        training=TrainingSettings.model_validate(config["training"]),
        card=config["card"],
        states=StatePlace.from_json(config["states"]) if config.get("states") else None,
        tracked=Tracked(Path(config["tracking"]), config["run"], config["training"]) if config.get("tracking") else None,
    )


def quiet_libraries() -> None:
    """Keep what DeepSpeed and transformers tell about themselves out of the run's log; warnings about faults stay."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    for name in ("DeepSpeed", "deepspeed", "transformers", "accelerate", "torch.distributed"):
        logging.getLogger(name).setLevel(logging.ERROR)
    transformers.logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning)


def train(job: Job, say: Say, signals: Signals) -> None:
    """Train, export, and write the result last.

    Raises:
        TrainingError: nothing to train, a non-finite step, a wrong engine, an export that does not reload.
        ModelError: the base model folder lacks a file, or its model cannot be trained here.
    """
    settings = job.training
    torch.set_num_threads(settings.threads)
    check_loggers(settings.loggers)
    check_base_model(job.base_model_dir)
    check_trainable(job.base_model_dir)
    template = ChatTemplate.from_json(job.card.get("chat_template", "chatml"))
    ends = read_end_tokens(template, job.base_model_dir)
    all_rows = load_rows(job.index_path, job.segment_paths)
    rows, held_out = hold_out_some(all_rows, settings.heldout_share)
    world = start_world()
    check_device_memory(job.base_model_dir, settings, rows, world)
    lora = lora_of(settings)
    module = build_module(
        job.base_model_dir,
        rows=all_rows,
        seed=settings.seed,
        lora=lora,
        checkpoints_gradients=settings.gradient_checkpointing,
    )
    if settings.packing:
        use_fast_attention(module.causal, dtype=settings.dtype, world=world)
    n_parameters = _count(module)  # before ZeRO-3 slices them
    n_micro, micro_batch_size = split_batch(settings, ranks=world.ranks)
    keeper = _keeper(job, world, signals)
    engine = start_engine(
        module,
        zero_stage=settings.zero_stage,
        dtype=settings.dtype,
        micro_batch_size=micro_batch_size,
        n_micro=n_micro,
        gradient_clipping=settings.gradient_clipping,
        lr=settings.peak_lr,
        betas=settings.betas,
        weight_decay=settings.weight_decay,
        decay=settings.decay,
        offload=settings.offload,
        loads_universal=keeper is not None and keeper.is_universal,
    )
    job.out_dir.mkdir(parents=True, exist_ok=True)
    startup_s = launch.seconds_since_start()
    begun = [StepRecord(**record) for record in keeper.resume(engine)] if keeper else []
    with tracking(job, world, n_begun=len(begun)) as log:
        curve = run_steps(engine, rows, settings, world=world, say=say, log=log, held_out=held_out, begun=begun, keeper=keeper)
    peak_rss_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    export_model(
        engine,
        job.out_dir,
        base_model_dir=job.base_model_dir,
        zero_stage=settings.zero_stage,
        lora=lora,
        world=world,
        ids_BT=check_ids(rows),
        ends=ends,
        chat_template=template.jinja,
    )
    if world.rank == 0:
        result = summarize(curve, settings, engine=engine, world=world, n_rows=len(rows), n_parameters=n_parameters)
        memory = {
            "peak_rss_bytes": peak_rss_bytes,
            "export_peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        }
        counts = {"n_heldout_rows": len(held_out), "resumed_behind_step": len(begun), "startup_seconds": round(startup_s, 3)}
        publish(job, curve, {**result, **memory, **counts})
    world.wait_for_all()
    torch.distributed.destroy_process_group()


def hold_out_some(rows: Sequence[Row], share: float) -> tuple[Sequence[Row], Sequence[Row]]:
    """(trained, held out).

    Raises:
        TrainingError: a class has no trained row left.
    """
    if share == 0:
        return rows, ()
    trained, held_out = hold_out(rows, share)
    if lost := sorted(
        {row.class_name for row in rows if row.weight > 0} - {row.class_name for row in trained if row.weight > 0}
    ):
        raise TrainingError(
            f"training.heldout_share = {share} holds out every row of class {', '.join(map(repr, lost))}; lower it, or select "
            "more questions"
        )
    if not held_out:
        LOG.warning("training.heldout_share = %s holds out none of %d rows: too few questions", share, len(rows))
    return trained, held_out


def tracking(job: Job, world: World, *, n_begun: int) -> AbstractContextManager[Log]:
    """Where rank 0 tells of its steps; nowhere where none is asked for."""
    if job.tracked is None or not job.training.loggers or world.rank != 0:
        return nullcontext(no_log)
    return open_loggers(job.training.loggers, job.tracked, n_begun=n_begun)


def check_device_memory(base_model_dir: Path, settings: TrainingSettings, rows: Sequence[Row], world: World) -> None:
    """Refuse, before the model is loaded, what this rank's GPU cannot hold.

    Raises:
        TrainingError: what it needs, and for what.
    """
    if world.device.type != "cuda":
        return
    longest = max(len(row.input_ids) for row in rows)
    needs = estimate_memory(base_model_dir, settings, longest=longest, has_gpu=True)
    free, _ = torch.cuda.mem_get_info(world.device)
    check_fits(needs.device, ranks=1, available=free, place=f"{world.device}'s memory", check=settings.memory_check)


def _keeper(job: Job, world: World, signals: Signals) -> StateKeeper | None:
    if job.states is None:
        return None
    made_by = {"ranks": world.ranks, "zero_stage": job.training.zero_stage, "dtype": job.training.dtype}
    keeper = StateKeeper(job.states, world, signals, has_frozen=job.training.adaptation == "lora", made_by=made_by)
    keeper.find()
    return keeper


def lora_of(settings: TrainingSettings) -> Lora | None:
    """None where all weights are trained."""
    return Lora(settings.lora_r, settings.lora_alpha) if settings.adaptation == "lora" else None


def split_batch(settings: TrainingSettings, *, ranks: int) -> tuple[int, int]:
    """(micro-batches per rank and step, rows in each), enough for `batch_size` rows over all ranks."""
    micro_batch_size = max(1, min(settings.micro_batch_size, math.ceil(settings.batch_size / ranks)))
    return math.ceil(settings.batch_size / (micro_batch_size * ranks)), micro_batch_size


def run_steps(
    engine: Any,
    rows: Sequence[Row],
    settings: TrainingSettings,
    *,
    world: World,
    say: Say,
    log: Log = no_log,
    held_out: Sequence[Row] = (),
    begun: Sequence[StepRecord] = (),
    keeper: StateKeeper | None = None,
) -> list[StepRecord]:
    """Train up to `settings.steps` optimiser steps; returns one record each.

    Args:
        engine: DeepSpeed's, its micro-batches those of `split_batch`.
        rows: what is trained.
        settings: the recipe's.
        world: this process.
        say: publishes a line of progress.
        log: is given every step's record.
        held_out: rows whose loss is measured between steps.
        begun: records of the steps that an earlier attempt took, whose state the engine has.
        keeper: saves states between steps.

    Raises:
        TrainingError: a step with nothing to train, or a loss or gradient norm that is not finite.
        TrainingPausedError: a signal asked for it.
    """
    curve = list(begun)
    n_micro, micro_batch_size = split_batch(settings, ranks=world.ranks)
    is_packed = settings.packing and _keeps_rows_apart(engine, rows, world, keeper)
    started_s = time.monotonic() - (curve[-1].seconds if curve else 0.0)
    plan = islice(plan_steps(rows, batch_size=settings.batch_size, seed=settings.seed), len(curve), settings.steps)
    for step, step_rows in enumerate(plan, len(curve)):
        lr, is_last = learning_rate(step, settings), step + 1 == settings.steps
        # a function of the step alone: a plain loop can take the very same steps, and the tests have one do so
        for group in engine.optimizer.param_groups:
            group["lr"] = lr
        if is_packed:
            shares = pack_share(step_rows, rank=world.rank, ranks=world.ranks, n_micro=n_micro)
        else:
            shares = rank_share(
                step_rows, rank=world.rank, ranks=world.ranks, micro_batch_size=micro_batch_size, n_micro=n_micro
            )
        done = train_step(engine, shares, step_rows, step_weight(step_rows, step), world=world, is_packed=is_packed)
        check_finite(step, step_rows, done)
        is_measured = bool(held_out) and (is_last or (step + 1) % settings.heldout_every_steps == 0)
        measured = measure_loss(engine, held_out, micro_batch_size=micro_batch_size, world=world) if is_measured else ()
        if measured and not math.isfinite(measured[0]):
            raise TrainingError(f"step {step + 1}: loss {measured[0]} of {len(held_out)} held-out rows; lower training.lr")
        curve.append(
            StepRecord(
                step + 1,
                done.loss,
                done.loss_by_class,
                lr,
                done.grad_norm,
                len(step_rows),
                sum(len(row.input_ids) for row in step_rows),
                sum(len(row.target_places) for row in step_rows),
                round(time.monotonic() - started_s, 4),
                *measured,
            )
        )
        log(curve[-1])
        if is_measured or is_last or (step + 1) % settings.log_every_steps == 0:
            say(progress_line(curve, settings.steps), always=is_last)
        if keeper is not None:
            keeper.after_step(engine, curve, is_last=is_last)
    return curve


def _keeps_rows_apart(engine: Any, rows: Sequence[Row], world: World, keeper: StateKeeper | None) -> bool:
    """Measured at every start, for another machine may attend otherwise; once unpacked, a training stays so."""
    is_apart = (keeper is None or keeper.is_packed is not False) and keeps_rows_apart(engine, rows, world=world)
    if keeper is not None:
        keeper.is_packed = is_apart
    return is_apart


def check_finite(step: int, step_rows: Sequence[Row], done: StepResult) -> None:
    """Refuse a step, counted from 0, that went nowhere.

    Raises:
        TrainingError: names its rows.
    """
    # DeepSpeed reports -1 for a norm that is not finite
    if not (math.isfinite(done.loss) and math.isfinite(done.grad_norm) and done.grad_norm >= 0):
        raise TrainingError(
            f"step {step + 1}, rows {name_rows(step_rows)}: loss {done.loss}, gradient norm {done.grad_norm}; expected finite "
            "numbers; lower training.lr or look at these rows"
        )


def summarize(
    curve: Sequence[StepRecord],
    settings: TrainingSettings,
    *,
    engine: Any,
    world: World,
    n_rows: int,
    n_parameters: tuple[int, int],
) -> dict[str, Any]:
    """What result.json says, but for the start-up time. `peak_gpu_bytes` is this rank's."""
    return {
        "engine": type(engine).__name__,
        "zero_stage": engine.zero_optimization_stage(),
        "world_size": world.ranks,
        **totals(curve, n_rows=n_rows, batch_size=settings.batch_size),
        **({"peak_gpu_bytes": torch.cuda.max_memory_allocated(world.device)} if world.device.type == "cuda" else {}),
        "n_parameters": n_parameters[0],
        "n_trainable": n_parameters[1],
        "dtype": settings.dtype,
        "device": str(world.device),
        "versions": {module.__name__: module.__version__ for module in (torch, deepspeed, transformers)},
    }


def publish(job: Job, curve: Sequence[StepRecord], result: Mapping[str, Any]) -> None:
    """Write curve and card, and the result last and whole: where it is, everything is."""
    lines = (json.dumps(asdict(record)) for record in curve)
    (job.out_dir / "curve.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    (job.out_dir / "card.json").write_text(json.dumps(job.card, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    replace_text(job.out_dir / "result.json", json.dumps(result, indent=2) + "\n")


def _count(module: torch.nn.Module) -> tuple[int, int]:
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in module.parameters()]
    return sum(n for n, _ in sizes), sum(n for n, is_trained in sizes if is_trained)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
