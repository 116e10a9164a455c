"""Builds the model to train, starts DeepSpeed's ZeRO engine around it, proves it is one, and takes one optimiser step.

CPU ranks speak gloo, GPUs nccl. Shape legend: B rows, T tokens, D hidden, V vocabulary, N trained positions.
"""

import logging
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import nn

from negtraj_dagster import launch
from negtraj_dagster.checkpoints.chunked_loss import chunked_loss
from negtraj_dagster.checkpoints.dataset import Row, collate
from negtraj_dagster.checkpoints.light_deepspeed import deepspeed
from negtraj_dagster.checkpoints.loading import load_model
from negtraj_dagster.checkpoints.losses import ClassSums
from negtraj_dagster.checkpoints.packing import collate_packed
from negtraj_dagster.checkpoints.row_attention import packed
from negtraj_dagster.checkpoints.world import World
from negtraj_dagster.errors import TrainingError

LOG = logging.getLogger(__name__)

SHM_OP = "deepspeed_shm_comm"

TIMEOUT = timedelta(hours=6)
"""How long ranks wait for one that hashes or converts a state; a rank that has died ends them at once."""

CHECK_TOKENS = 64

LARGE_LOGIT = 200.0
"""Far above the caps in use (30 and 50)."""

MAX_BUCKET_SIZES = {0: 500_000_000, 1: 500_000_000, 2: 500_000_000, 3: 50_000_000}
"""Elements by ZeRO stage. 500 million are DeepSpeed's default; it allocates that much even for a model far smaller. With fewer
stage 3 was seen to need less memory, stage 2 more."""


@dataclass(frozen=True)
class StepResult:
    """What an optimiser step did, over all ranks.

    Attributes:
        loss: sum of weight x cross-entropy of its targets, divided by the sum of weights.
        grad_norm: before clipping.
        loss_by_class: the same as `loss` of the targets of each class's rows.
    """

    loss: float
    grad_norm: float
    loss_by_class: dict[str, float]


@dataclass(frozen=True)
class Lora:
    """Low-rank adaptation of all linear layers but the output one."""

    r: int
    alpha: int


class TargetLoss(nn.Module):
    """A causal model that returns the summed, weighted cross-entropy of its targets; logits exist at targets only."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model: Any = model

    @property
    def causal(self) -> Any:
        """The Hugging Face model, out of its LoRA wrapper if it has one."""
        return self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model

    def forward(
        self,
        ids_BT: torch.Tensor,
        places_N: torch.Tensor,
        targets_N: torch.Tensor,
        weights_N: torch.Tensor,
        positions_BT: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Sum over targets of weight x cross-entropy, float32 scalar, and each target's cross-entropy, float32 [N].

        No attention mask and no cache: rows are causal and padded on the right, and transformers treats either as
        reason to build another mask (its masking_utils). Positions are given where rows are packed (`packing`).
        """
        causal = self.causal
        with packed(positions_BT):
            hidden_BTD = causal.base_model(input_ids=ids_BT, position_ids=positions_BT, use_cache=False).last_hidden_state
        hidden_ND = hidden_BTD.reshape(-1, hidden_BTD.shape[-1]).index_select(0, places_N)
        head: nn.Linear = causal.get_output_embeddings()
        # the second term is 0: it keeps every parameter in the graph of a micro-batch without targets
        loss, losses_N = chunked_loss(hidden_ND, head.weight, head.bias, targets_N, weights_N)
        return loss + 0.0 * hidden_BTD[:, :1].sum(), losses_N


def build_module(
    base_model_dir: Path, *, rows: Sequence[Row], seed: int, lora: Lora | None, checkpoints_gradients: bool = False
) -> TargetLoss:
    """The model to train, its logits at chosen places proved equal to the model's own.

    Args:
        base_model_dir: Hugging Face layout.
        rows: all that will be trained or measured.
        seed: of what LoRA draws.
        lora: None for all weights.
        checkpoints_gradients: whether each layer's activations are made again in the backward pass, rather than kept.

    Raises:
        ModelError: the folder's weights are not those of its config.
        TrainingError: they differ (a model that scales or caps its logits), or a row is longer than its positions.
    """
    torch.manual_seed(seed)
    model = load_model(base_model_dir, torch.float32).eval()
    max_positions = getattr(model.config, "max_position_embeddings", None)
    longest = max(rows, key=lambda row: len(row.input_ids))
    if max_positions and len(longest.input_ids) > max_positions:
        raise TrainingError(
            f"token key {longest.token_key}: {len(longest.input_ids)} tokens, the base model {base_model_dir} has "
            f"{max_positions} positions; lower shards.max_tokens or choose another base model"
        )
    check_token_ids(model, rows, base_model_dir)
    check_head(model, base_model_dir)
    check_logits(model, check_ids(rows), base_model_dir)
    if checkpoints_gradients:
        model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
    return TargetLoss((add_lora(model, lora) if lora else model).train())


def check_token_ids(model: Any, rows: Sequence[Row], base_model_dir: Path) -> None:
    """Refuse rows with a token that the model has no embedding of: on a GPU it would be read from other memory.

    Raises:
        TrainingError: names the first such row and its token.
    """
    n_embeddings = model.get_input_embeddings().num_embeddings
    for row in rows:
        if len(row.input_ids) and (largest := int(row.input_ids.max())) >= n_embeddings:
            raise TrainingError(
                f"token key {row.token_key}: token id {largest}, the base model {base_model_dir} has {n_embeddings} embeddings "
                "(ids from 0); its tokenizer.json is another model's or was extended: resize the model's embeddings and save it"
            )


def check_head(model: Any, base_model_dir: Path) -> None:
    """Refuse an output layer that is more than a product with its weights: the loss is computed from these alone.

    Raises:
        TrainingError: names its class.
    """
    head = model.get_output_embeddings()
    if type(head) is not nn.Linear:
        raise TrainingError(
            f"{base_model_dir}: the output layer is a {type(head).__name__}, expected torch.nn.Linear; choose another base "
            f"model"
        )


def check_logits(model: Any, ids_BT: torch.Tensor, base_model_dir: Path) -> None:
    """Prove that the output layer's logits are the model's own, also where they are large and a cap would show.

    Raises:
        TrainingError: they differ.
    """
    head = model.get_output_embeddings()
    with torch.no_grad():
        hidden_BTD = model.base_model(input_ids=ids_BT, use_cache=False).last_hidden_state
        largest = float(head(hidden_BTD).abs().max())
        for factor in (1.0, max(1.0, LARGE_LOGIT / max(largest, 1e-6))):
            hook = head.register_forward_pre_hook(lambda _, hidden, factor=factor: (hidden[0] * factor,))
            own_BTV, ours_BTV = model(input_ids=ids_BT, use_cache=False).logits, head(hidden_BTD)
            hook.remove()
            if not torch.allclose(own_BTV, ours_BTV, atol=1e-4 * max(1.0, factor * largest), rtol=1e-4):
                raise TrainingError(
                    f"{base_model_dir}: {type(model).__name__} changes its logits after the output layer, which this trainer "
                    "does not follow; choose another base model"
                )


def check_ids(rows: Sequence[Row]) -> torch.Tensor:
    """int64 [1, T]: the first tokens of the first row, for comparing logits."""
    return torch.from_numpy(rows[0].input_ids[:CHECK_TOKENS].astype("int64")).unsqueeze(0)


def add_lora(model: Any, lora: Lora) -> Any:
    """Freeze the model and add trainable adapters."""
    import peft

    config = peft.LoraConfig(r=lora.r, lora_alpha=lora.alpha, target_modules="all-linear", task_type="CAUSAL_LM")
    return peft.get_peft_model(model, config)


def start_world() -> World:
    """Join this process to its ranks (torchrun's environment variables; alone where they are unset)."""
    if not shutil.which("c++") or not shutil.which("ninja"):
        LOG.info("no C++ compiler or ninja on PATH: DeepSpeed's shared-memory op stays off, ranks speak plain gloo")
    # used by inference_all_reduce only (deepspeed/comm/torch.py), yet compiled for every start unless switched off
    deepspeed.ops.__dict__.setdefault("__compatible_ops__", {})[SHM_OP] = False
    has_gpu = torch.cuda.is_available() and os.environ.get("DS_ACCELERATOR") != "cpu"
    one_process = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1"}
    for name, value in one_process.items():
        os.environ.setdefault(name, value)
    os.environ.setdefault("MASTER_PORT", str(launch.free_port()))
    local_rank = int(os.environ["LOCAL_RANK"])
    if has_gpu and local_rank >= (n_gpus := torch.cuda.device_count()):
        raise TrainingError(
            f"training.ranks = {os.environ['WORLD_SIZE']}: {n_gpus} GPUs are visible, one is needed for each rank; lower "
            f"training.ranks, or show more by CUDA_VISIBLE_DEVICES"
        )
    if has_gpu:
        torch.cuda.set_device(local_rank)
    elif launch.has_gpu() and os.environ.get("DS_ACCELERATOR") != "cpu" and os.environ["RANK"] == "0":
        LOG.warning(
            "a GPU's device file is there, but torch %s sees no GPU: training goes on on the processor; install torch for this "
            "driver, or correct CUDA_VISIBLE_DEVICES",
            torch.__version__,
        )
    deepspeed.init_distributed(
        dist_backend="nccl" if has_gpu else "gloo", auto_mpi_discovery=False, verbose=False, timeout=TIMEOUT
    )
    device = torch.device("cuda", local_rank) if has_gpu else torch.device("cpu")
    return World(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), device)


def start_engine(
    module: TargetLoss,
    *,
    zero_stage: int,
    dtype: str,
    micro_batch_size: int,
    n_micro: int,
    gradient_clipping: float,
    weight_decay: float,
    decay: str = "matrices",
    offload: str = "none",
    loads_universal: bool = False,
    **adamw: Any,
) -> Any:
    """Wrap the module and a torch AdamW in a DeepSpeed engine.

    Args:
        module: on CPU; the engine moves it.
        zero_stage: 0 to 3.
        dtype: `fp32` or `bf16` (fp32 master weights are kept by DeepSpeed).
        micro_batch_size: rows per forward pass.
        n_micro: forward passes per optimiser step and rank.
        gradient_clipping: largest global gradient norm.
        weight_decay: see `parameter_groups`.
        decay: of what: `matrices` or `all`.
        offload: what a GPU's host keeps: `none`, the `optimizer`'s state, or `all`.
        loads_universal: whether what it will load is of another number of ranks.
        adamw: lr, betas.

    Raises:
        TrainingError: what came back is no DeepSpeed engine of that stage, or bf16 is asked for without ZeRO.
    """
    if dtype == "bf16" and zero_stage == 0:
        raise TrainingError("training.dtype = 'bf16' with zero_stage = 0: DeepSpeed takes other steps than AdamW; set it to 1")
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    head = module.causal.get_output_embeddings()
    bucket_size = min(MAX_BUCKET_SIZES[zero_stage], sum(parameter.numel() for parameter in trained))
    optimizer = torch.optim.AdamW(parameter_groups(trained, weight_decay, decay), fused=True, **adamw)
    engine, *_ = deepspeed.initialize(
        model=module,
        optimizer=optimizer,
        model_parameters=trained,
        config={
            "train_micro_batch_size_per_gpu": micro_batch_size,
            "gradient_accumulation_steps": n_micro,
            "gradient_clipping": gradient_clipping,
            "bf16": {"enabled": dtype == "bf16"},
            # bf16 sums of many micro-batches lose what is small. ZeRO 1, which would take another optimizer, has them still
            **({"data_types": {"grad_accum_dtype": "fp32"}} if dtype == "bf16" and zero_stage > 1 and n_micro > 1 else {}),
            "zero_allow_untested_optimizer": True,
            "zero_force_ds_cpu_optimizer": False,
            "steps_per_print": 1_000_000_000,
            "wall_clock_breakdown": False,
            "checkpoint": {"load_universal": loads_universal},
            "zero_optimization": {
                "stage": zero_stage,
                "reduce_bucket_size": bucket_size,
                "allgather_bucket_size": bucket_size,
                "overlap_comm": False,
                "contiguous_gradients": True,
                "stage3_param_persistence_threshold": 1000,
                **({"offload_optimizer": {"device": "cpu"}} if offload != "none" else {}),
                **({"offload_param": {"device": "cpu"}} if offload == "all" else {}),
            },
        },
    )
    if not isinstance(engine, deepspeed.DeepSpeedEngine) or engine.zero_optimization_stage() != zero_stage:
        engine_name = f"{type(engine).__name__}, stage {getattr(engine, 'zero_optimization_stage', lambda: None)()}"
        raise TrainingError(
            f"DeepSpeed returned {engine_name}; expected DeepSpeedEngine, stage {zero_stage}; reinstall deepspeed"
        )
    if zero_stage == 3:
        for parameter in head.parameters():  # the loss reads them outside of their own layer
            deepspeed.zero.register_external_parameter(module, parameter)
    return engine


def parameter_groups(trained: Sequence[nn.Parameter], weight_decay: float, decay: str = "matrices") -> list[dict[str, Any]]:
    """Matrices, which decay, and what has one dimension (norms, biases), which does not: pulling a norm to 0 is no prior.

    Where `decay` is `all`, everything does.
    """
    if decay == "all":
        return [{"params": list(trained), "weight_decay": weight_decay}]
    matrices = [parameter for parameter in trained if parameter.ndim >= 2]
    vectors = [parameter for parameter in trained if parameter.ndim < 2]
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def train_step(
    engine: Any,
    shares: Sequence[Sequence[Row]],
    step_rows: Sequence[Row],
    weight: float,
    *,
    world: World,
    is_packed: bool = False,
) -> StepResult:
    """One optimiser step of this rank.

    The loss is sum(w * ce) / sum(w) over every rank and micro-batch. DeepSpeed averages gradients over ranks, hence the
    factor; it is told not to divide by the number of micro-batches.

    Args:
        engine: DeepSpeed's.
        shares: this rank's micro-batches.
        step_rows: the rows of all ranks.
        weight: sum of their targets' weights.
        world: this process.
        is_packed: whether a micro-batch's rows stand behind one another.
    """
    losses: list[torch.Tensor] = []
    sums = ClassSums(step_rows, world)
    for i, rows in enumerate(shares):
        if i > 0:
            engine.step()  # not the last micro-batch: counts it, updates nothing
        batch = (collate_packed if is_packed else collate)(rows).to(world.device)
        total, losses_N = batch.run(engine)
        loss = total / weight
        engine.backward(loss * world.ranks, scale_wrt_gas=False)
        losses.append(loss.detach())
        sums.add(rows, batch, losses_N)
    # without ZeRO, the engine keeps its norm to itself
    unsharded_norm = _gradient_norm(engine) if engine.zero_optimization_stage() == 0 else None
    engine.step()
    total = torch.stack(losses).sum()
    if world.ranks > 1:
        torch.distributed.all_reduce(total)
    norm = engine.get_global_grad_norm() if unsharded_norm is None else unsharded_norm
    return StepResult(float(total), float(norm), sums.means())


def _gradient_norm(engine: Any) -> torch.Tensor:
    gradients = [parameter.grad for parameter in engine.module.parameters() if parameter.grad is not None]
    return torch.nn.utils.get_total_norm(gradients)


@contextmanager
def whole_parameters(module: nn.Module, *, zero_stage: int) -> Iterator[None]:
    """Within: every parameter has its full shape on every rank (ZeRO-3 keeps slices outside)."""
    if zero_stage < 3:
        yield
        return
    with deepspeed.zero.GatheredParameters(list(module.parameters()), modifier_rank=None):
        yield
