"""What a training needs is told from its files, and refused where it is more than there is."""

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from negtraj_dagster.checkpoints.memory import available_bytes, check_fits, estimate_memory
from negtraj_dagster.errors import TrainingError
from negtraj_dagster.recipes import TrainingSettings

HIDDEN, LAYERS, FEED_FORWARD, VOCABULARY = 64, 4, 256, 1000


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A config and the header of weights; of these nothing else is read."""
    config = {"hidden_size": HIDDEN, "num_hidden_layers": LAYERS, "intermediate_size": FEED_FORWARD, "num_attention_heads": 4}
    (tmp_path / "config.json").write_text(json.dumps({**config, "num_key_value_heads": 2, "vocab_size": VOCABULARY}))
    shapes = {"model.embed_tokens.weight": [VOCABULARY, HIDDEN], "model.norm.weight": [HIDDEN]}
    shapes |= {f"model.layers.{i}.mlp.up_proj.weight": [FEED_FORWARD, HIDDEN] for i in range(LAYERS)}
    header, at = {}, 0
    for name, shape in shapes.items():
        size = 4 * shape[0] * (shape[1] if len(shape) > 1 else 1)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + bytes(at))
    return tmp_path


def settings(**changes: Any) -> TrainingSettings:
    return TrainingSettings(**{"steps": 1, "lr": 0.1, "batch_size": 8, "micro_batch_size": 4, **changes})


def total(parts: dict[str, int]) -> int:
    return sum(parts.values())


def activations(model: Path, **changes: Any) -> int:
    parts = estimate_memory(model, settings(**changes), longest=100).host
    return next(size for name, size in parts.items() if name.startswith("activations"))


def test_activations_grow_with_rows_and_layers_and_shrink_when_they_are_made_again(model: Path) -> None:
    of_layer = 8 * HIDDEN + 4 * FEED_FORWARD + 2 * 32
    assert activations(model) == 1.25 * 4 * 100 * ((LAYERS + 1) * of_layer + 2 * HIDDEN) * 4
    assert activations(model, micro_batch_size=1) * 4 == activations(model)
    assert activations(model, micro_batch_size=64, ranks=2) == activations(model)  # no more than a rank's share of 8
    assert activations(model, dtype="bf16") * 2 == activations(model)
    assert activations(model, gradient_checkpointing=True) < 0.6 * activations(model)


@pytest.mark.parametrize("zero_stage", [1, 2, 3])
def test_ranks_divide_what_zero_shards(model: Path, zero_stage: int) -> None:
    one, two = (estimate_memory(model, settings(zero_stage=zero_stage, ranks=ranks), longest=9).host for ranks in (1, 2))
    assert two["optimizer"] * 2 == pytest.approx(one["optimizer"], abs=2)
    assert total(two) < total(one) < 2 * total(two)


def test_adapters_need_no_optimizer_for_the_frozen_weights(model: Path) -> None:
    lora, full = (estimate_memory(model, settings(adaptation=name), longest=9).host for name in ("lora", "full"))
    n_adapters = LAYERS * 8 * (FEED_FORWARD + HIDDEN)
    assert lora["optimizer"] == 4 * 3 * n_adapters
    assert full["optimizer"] == 4 * 3 * (VOCABULARY * HIDDEN + HIDDEN + LAYERS * FEED_FORWARD * HIDDEN)


def test_what_is_offloaded_moves_from_the_gpu_to_its_host(model: Path) -> None:
    estimates = {
        offload: estimate_memory(model, settings(offload=offload, zero_stage=3), longest=9, has_gpu=True)
        for offload in ("none", "optimizer", "all")
    }
    assert "optimizer" in estimates["none"].device
    assert estimates["optimizer"].device.keys() == estimates["none"].device.keys() - {"optimizer"}
    assert estimates["all"].device.keys() == estimates["optimizer"].device.keys() - {"weights"}
    assert {"optimizer", "weights"} <= estimates["all"].host.keys()


def test_what_cannot_fit_is_refused_with_its_parts_and_remedies() -> None:
    parts = {"weights": 2_000_000_000, "activations of 8 x 4096 tokens": 9_000_000_000}
    with pytest.raises(TrainingError) as refusal:
        check_fits(parts, ranks=2, available=16_000_000_000, place="this machine's memory", check="refuse")
    for word in ("about 22.0 GB", "16.0 GB are available", "4096 tokens 9.0 GB", "each of 2 ranks", "micro_batch_size", "warn"):
        assert word in str(refusal.value)


def test_what_fits_or_is_only_warned_of_starts(caplog: pytest.LogCaptureFixture) -> None:
    for available in (None, 10, 11):
        check_fits({"weights": 10}, ranks=1, available=available, place="it", check="refuse")
    assert not caplog.records
    check_fits({"weights": 10}, ranks=2, available=19, place="it", check="warn")
    assert "training needs about" in caplog.text


def test_a_containers_limit_counts_before_the_machines(tmp_path: Path) -> None:
    proc, cgroup = tmp_path / "proc", tmp_path / "cgroup"
    proc.mkdir()
    cgroup.mkdir()
    assert available_bytes(proc, cgroup) is None
    (proc / "meminfo").write_text("MemTotal: 90 kB\nMemAvailable:   64 kB\n")
    assert available_bytes(proc, cgroup) == 64 * 1024
    for name, text in {"memory.max": "40000", "memory.current": "30000", "memory.stat": "anon 1\ninactive_file 5000\n"}.items():
        (cgroup / name).write_text(text)
    assert available_bytes(proc, cgroup) == 15000
    (cgroup / "memory.max").write_text("max\n")
    assert available_bytes(proc, cgroup) == 64 * 1024


@pytest.mark.parametrize(
    ("line", "names", "root"),
    [
        ("0::/jobs/mine\n", ("memory.max", "memory.current", "inactive_file"), ""),
        (
            "4:cpu,memory:/jobs/mine\n3:pids:/\n",
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
            "memory",
        ),
    ],
)
def test_the_least_of_all_groups_that_a_process_is_in_counts(
    tmp_path: Path, line: str, names: tuple[str, str, str], root: str
) -> None:
    proc, mount = tmp_path / "proc", tmp_path / "cgroup"
    (proc / "self").mkdir(parents=True)
    (proc / "meminfo").write_text("MemAvailable:   640 kB\n")
    (proc / "self" / "cgroup").write_text(line)
    for group, allowed in (("", "max"), ("jobs", "50000"), ("jobs/mine", "90000"), ("jobs/others", "100")):
        folder = mount / root / group
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in zip((*names[:2], "memory.stat"), (allowed, "20000", f"{names[2]} 500\n"), strict=True):
            (folder / name).write_text(text)
    assert available_bytes(proc, mount) == 30500
    (mount / root / "jobs/mine" / names[0]).write_text("30000")
    assert available_bytes(proc, mount) == 10500
