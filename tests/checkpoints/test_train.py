"""The trainer, run as its users run it: real processes, real DeepSpeed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from negtraj_dagster.errors import ChildRunError, TrainingError
from tests.checkpoints.conftest import CARD, OWN_TEMPLATE

REPOSITORY = Path(__file__).parents[2]


def read_curve(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "curve.jsonl").read_text().splitlines()]


def processes_naming(text: str) -> list[int]:
    """Pids of live processes with this text in their command line."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                command, state = (entry / "cmdline").read_bytes(), (entry / "stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue
            if text.encode() in command and state != "Z":
                found.append(int(entry.name))
    return found


def wait_until(condition, timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.1)
    return condition()


@pytest.fixture(scope="module")
def one_rank(material) -> Path:
    """One rank, two micro-batches a step."""
    return material.train("one_rank", micro_batch_size=4)


@pytest.fixture(scope="module")
def lora_without_compiler(material, tmp_path_factory) -> Path:
    """LoRA under ZeRO-3 with no c++ and no ninja on PATH."""
    return material.train(
        "lora", adaptation="lora", zero_stage=3, steps=4, extra_env={"PATH": str(tmp_path_factory.mktemp("empty"))}
    )


def test_the_loss_falls(one_rank):
    losses = [line["loss"] for line in read_curve(one_rank)]
    assert len(losses) == 20
    assert losses[-1] < 0.7 * losses[0]


def test_the_engine_is_deepspeed_of_the_stage_asked_for(one_rank):
    result = json.loads((one_rank / "result.json").read_text())
    assert (result["engine"], result["zero_stage"], result["world_size"]) == ("DeepSpeedEngine", 2, 1)


def test_the_result_counts_what_was_trained(one_rank):
    result, curve = json.loads((one_rank / "result.json").read_text()), read_curve(one_rank)
    assert result["steps"] == 20
    assert result["rows_seen"] == sum(line["rows"] for line in curve) == 5 * 31
    assert result["epochs"] == 5.0  # 31 rows are 4 steps of 8
    assert result["trained_tokens"] == 7 * result["rows_seen"]
    assert result["trained_share"] == pytest.approx(result["trained_tokens"] / result["tokens"])
    assert result["final_loss"] == pytest.approx(sum(line["loss"] for line in curve) / 20)
    assert result["n_trainable"] == result["n_parameters"] > 0


def test_the_card_is_copied(one_rank):
    assert json.loads((one_rank / "card.json").read_text()) == CARD


def test_two_ranks_and_two_micro_batches_give_the_same_losses_and_norms(material, one_rank):
    two_ranks = material.train("two_ranks", ranks=2)
    assert json.loads((two_ranks / "result.json").read_text())["world_size"] == 2
    for a, b in zip(read_curve(one_rank), read_curve(two_ranks), strict=True):
        assert a["loss"] == pytest.approx(b["loss"], abs=1e-5)
        assert a["grad_norm"] == pytest.approx(b["grad_norm"], rel=1e-3)


def test_the_first_loss_is_the_weighted_mean_over_the_global_batch(material, one_rank):
    import torch
    from transformers import AutoModelForCausalLM

    from negtraj_dagster.checkpoints.dataset import load_rows, plan_steps

    rows = load_rows(material.folder / "index.parquet", [material.folder / f"{name}.arrow" for name in "ab"])
    model = AutoModelForCausalLM.from_pretrained(material.folder / "base", dtype=torch.float32).eval()
    loss = weight = 0.0
    for row in next(plan_steps(rows, batch_size=8, seed=0)):
        ids = torch.from_numpy(row.input_ids.astype("int64"))
        with torch.no_grad():
            log_p = model(input_ids=ids.unsqueeze(0)).logits[0].log_softmax(-1)
        for place, w in zip(row.target_places, row.target_weights, strict=True):
            loss -= float(w) * float(log_p[place - 1, ids[place]])
            weight += float(w)
    assert read_curve(one_rank)[0]["loss"] == pytest.approx(loss / weight, abs=1e-5)


def test_the_exported_model_loads_and_carries_its_tokenizer(one_rank):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(one_rank / "model")
    tokenizer = AutoTokenizer.from_pretrained(one_rank / "model")
    assert model.config.vocab_size == len(tokenizer) == 259
    assert tokenizer.chat_template == OWN_TEMPLATE  # the one its rows were written by
    assert (one_rank / "model" / "generation_config.json").is_file()


def test_lora_under_zero_3_trains_without_a_compiler_and_exports_adapter_and_merged_model(lora_without_compiler, material):
    from safetensors.torch import load_file

    result = json.loads((lora_without_compiler / "result.json").read_text())
    assert (result["engine"], result["zero_stage"]) == ("DeepSpeedEngine", 3)
    assert result["n_trainable"] < result["n_parameters"]
    adapter = load_file(lora_without_compiler / "adapter" / "adapter_model.safetensors")
    assert adapter
    assert all(tensor.numel() > 0 for tensor in adapter.values())
    merged = load_file(lora_without_compiler / "model" / "model.safetensors")
    base = load_file(material.folder / "base" / "model.safetensors")
    assert merged.keys() == base.keys()
    changed = {name for name in base if not merged[name].equal(base[name])}
    assert changed == {name for name in base if name.endswith("_proj.weight")}


def test_a_failed_rank_raises_with_its_last_lines(material):
    with pytest.raises(ChildRunError, match=r"missing \[\], unknown \['stepz'\].*\n.*exit code 1"):
        material.train("bad", stepz=3)


def test_an_interrupt_ends_every_rank(material):
    config_path = material.config("interrupted", ranks=2, steps=100_000)
    code = (
        "from pathlib import Path; from negtraj_dagster.launch import run_child; "
        f"run_child('negtraj_dagster.checkpoints.train', Path({str(config_path)!r}), ranks=2)"
    )
    environment = {**os.environ, "NEGTRAJ_PROGRESS": "1", "PYTHONPATH": str(REPOSITORY)}
    parent = subprocess.Popen([sys.executable, "-c", code], env=environment, stderr=subprocess.PIPE, text=True)
    try:
        assert parent.stderr is not None
        assert any(line.startswith("step ") for line in parent.stderr), "training never began"
        assert len(processes_naming(config_path.name)) >= 3
        parent.send_signal(signal.SIGINT)
        parent.wait(timeout=30)
        assert processes_naming(config_path.name) == []
    finally:
        parent.kill()


def test_a_killed_parent_takes_its_ranks_along(material):
    config_path = material.config("orphaned", steps=100_000)
    code = (
        "from pathlib import Path; from negtraj_dagster.launch import run_child; "
        f"run_child('negtraj_dagster.checkpoints.train', Path({str(config_path)!r}))"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(REPOSITORY)})
    assert wait_until(lambda: len(processes_naming(config_path.name)) >= 2, timeout_s=20)
    time.sleep(1.0)
    parent.kill()
    parent.wait()
    assert wait_until(lambda: processes_naming(config_path.name) == [], timeout_s=5)


def test_a_step_without_targets_is_refused(tmp_path):
    import numpy as np

    from negtraj_dagster.checkpoints.dataset import Row, step_weight

    empty = Row("key-7", "question", "positive", np.arange(5), np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32))
    with pytest.raises(TrainingError, match=r"step 3: rows key-7 have no trained token"):
        step_weight([empty], 2)


@pytest.mark.parametrize(
    "numbers", [(float("nan"), 1.0), (1.0, float("inf")), (1.0, -1.0)], ids=["loss", "norm", "masked norm"]
)
def test_a_step_that_is_not_finite_is_refused_with_its_rows(material, monkeypatch, numbers):
    from types import SimpleNamespace

    from negtraj_dagster.checkpoints import train
    from negtraj_dagster.checkpoints.dataset import load_rows

    rows = load_rows(material.folder / "index.parquet", [material.folder / f"{name}.arrow" for name in "ab"])
    monkeypatch.setattr(train, "train_step", lambda *args, **kwargs: train.StepResult(*numbers, {}))
    engine = SimpleNamespace(optimizer=SimpleNamespace(param_groups=[]))
    settings = train.read_job(material.config("not_finite")).training
    with pytest.raises(TrainingError, match=r"step 1, rows key-\d+, .*: loss .*, gradient norm .*; lower training\.lr"):
        train.run_steps(
            engine,
            rows,
            settings,
            world=SimpleNamespace(rank=0, ranks=1),
            say=lambda line, *, always=False: None,
        )
