"""What every stage writes, held against its behaviour version: other bytes under an old version would stay unseen for ever.

`tests/golden/behaviour.json` records per stage the version and a digest of what it makes of fixed inputs. Where the bytes
change and the version does not, the test fails, and refreshing the file is refused: raise the version first.
"""

import json
import os
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from negtraj_dagster import base_models, sql
from negtraj_dagster.chat_templates import VERSIONS
from negtraj_dagster.checkpoints import build as checkpoints
from negtraj_dagster.checkpoints.dataset import load_rows, plan_steps
from negtraj_dagster.checkpoints.train import learning_rate
from negtraj_dagster.modeling import make_base_model
from negtraj_dagster.recipes import TrainingSettings, load_recipes
from negtraj_dagster.reports import build as reports
from negtraj_dagster.reports import champion, compare
from negtraj_dagster.rollouts import collect, landing, read
from negtraj_dagster.rollouts.formats import FORMAT_VERSIONS, negtraj
from negtraj_dagster.schema import Question, digest, digest_json
from negtraj_dagster.settings import Settings, WordtrapsSettings, load_settings
from negtraj_dagster.shards import build as shards
from negtraj_dagster.shards import tokenize
from negtraj_dagster.store import STORE_VERSION, Built, Store, file_sha256
from negtraj_dagster.strategies import STRATEGIES
from negtraj_dagster.tasks import EMBEDDED
from negtraj_dagster.tasks.question_sets import QUESTION_SETS_VERSION
from negtraj_dagster.trajectories import corpus, labels, score, select
from tests.support import deployment as dep

GOLDEN = Path(__file__).parent / "golden" / "behaviour.json"
REFRESH = "UPDATE_GOLDEN=1 python -m pytest tests/test_behaviour.py"
BAD_RECORDS = '{"question_id": "train-1"}\n{bad\n{"a": NaN}\n[1]\n'
NAT_RECORD = {
    "id": "train-2",
    "source": "gpt",
    "info": {"reward": True, "pred": "yes", "gt": True},
    "conversations": [
        {"role": "assistant", "content": "Thought: a.\nAction: search[b]"},
        {"role": "user", "content": "Observation: <|im_end|> é\u2028 "},
        {"role": "assistant", "content": "Thought: c.\nAction: finish[yes]", "loss": False},
    ],
}
RECORD_WITH_TOOLS = {
    "question_id": "q",
    "messages": [
        {
            "role": "assistant",
            "content": "<think>\na\n</think>\n\n",
            "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": {"b": 1.0, "a": "é"}}}],
            "token_ids": [5, 0],
        },
        {"role": "tool", "content": "x", "tool_call_id": "1", "name": "f", "loss": 0},
        {
            "role": "assistant",
            "content": "abc",
            "loss": 0.5,
            "ranges": [{"field": "content", "start": start, "end": start + 1, "weight": start} for start in (2, 0)],
        },
    ],
    "tools": [{"type": "function", "function": {"name": "f"}}],
    "tokenizer": "m",
}


class Made:
    """A deployment built once, with records good and bad in both formats."""

    def __init__(self, folder: Path) -> None:
        make_base_model("bytes", folder / "base", texts=[], format_strings=[])
        self.root = dep.make_deployment(folder / "d", folder / "base")
        files = dep.landed(self.root)
        files[0].with_name("zz-bad.jsonl").write_text(BAD_RECORDS)
        nat = self.root / "home" / "landing" / "strategyqa" / "nat"
        nat.mkdir(parents=True)
        (nat / "a.json").write_text(json.dumps([NAT_RECORD, NAT_RECORD], ensure_ascii=False))
        with pytest.MonkeyPatch.context() as patch:
            for name, value in dep.environment(self.root).items():
                patch.setenv(name, value)
            self.ran = dep.run(self.root, dep.counting_child)
            self.recipe = load_recipes(load_settings())["tiny_nat"]
        self.store = Store(self.root / "home")

    def content(self, asset: str) -> dict[str, Any]:
        return self.ran.published[asset].content

    def file(self, asset: str, name: str) -> Path:
        return self.ran.published[asset].folder / name


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return Made(tmp_path_factory.mktemp("behaviour"))


def versions_of_sql() -> list[str]:
    registry = sql.load_registry()
    made = [registry.one("selection", name) for name in ("quality", "choice")]
    files = [*registry.filters, *registry.scores, *map(registry.model, sql.MODEL_ORDER), *made]
    return [file.version[:12] for file in files]


def conditioned() -> str:
    asked = Question("t", "q", "train", "How many?", "1")
    turns: list[Any] = [{"role": "assistant", "content": "Action: finish[1]"}, {"role": "user", "content": "Observation: x"}]
    made = []
    for name, strategy in sorted(STRATEGIES.items()):
        prompter = strategy.prompter("Answer.")
        made.append([name, strategy.inference_turns(prompter, asked)])
        made += [strategy.condition(prompter, asked, turns, label) for label in strategy.classes]
    return digest_json(made)


def with_tools() -> str:
    rollout = negtraj.read_record("t", RECORD_WITH_TOOLS)
    return digest_json([list(rollout.turns), rollout.tools, rollout.tokenizer, rollout.base_key()])


def trained(made: Made) -> str:
    """The plan of steps and the learning rates: all of training that does not depend on the machine's arithmetic."""
    shards_of = made.ran.published["tiny_nat/tokenized_shards"]
    segments = [made.store.folder(name) / "rows.arrow" for name in shards_of.details["segments"]]
    rows = load_rows(shards_of.folder / "index.parquet", segments)
    plan = [[row.token_key for row in step] for step in islice(plan_steps(rows, batch_size=8, seed=3), 60)]
    weights = [[row.target_places.tolist(), row.target_weights.tolist()] for row in rows[:5]]
    settings = TrainingSettings(
        **{**made.recipe.training.model_dump(mode="json", exclude={"warm_start"}), "steps": 50, "betas": (0.9, 0.98)}
    )
    return digest_json([plan, weights, [round(learning_rate(step, settings), 12) for step in range(50)]])


def teacher_lines() -> str:
    sizes = WordtrapsSettings(n_train_questions=40, n_gate_questions=5, n_test_questions=5)
    return digest(*collect._teacher_lines(Settings(home=Path("unused"), wordtraps=sizes)))


def stored_manifest(made: Made) -> str:
    def write(folder: Path) -> Built:
        (folder / "a.txt").write_text("a")
        return Built({"said": "a"}, {"n": 1}, {"words": 1}, volatile=("a.txt",))

    return (made.store.build("greeting", {"n": 1}, write).folder / "MANIFEST.json").read_text()


def tokenizer_bytes(tmp: Path) -> str:
    make_base_model("bytes", tmp, texts=[], format_strings=[])
    return file_sha256(tmp / "tokenizer.json")


CORPUS = "trajectory_corpus/strategyqa"
STAGES: dict[str, tuple[Callable[[], Any], Callable[[Made], str]]] = {
    "store": (lambda: STORE_VERSION, lambda made: digest(stored_manifest(made))),
    "question_sets": (
        lambda: [QUESTION_SETS_VERSION, {name: task.version for name, task in sorted(EMBEDDED.items())}],
        lambda made: digest_json(made.content("question_sets")),
    ),
    "teacher": (lambda: collect.TEACHER_VERSION, lambda made: teacher_lines()),
    "base_model": (lambda: base_models.BASE_MODEL_VERSION, lambda made: tokenizer_bytes(made.root / "again")),
    "raw_rollouts": (
        lambda: [read.INDEX_VERSION, landing.READER_VERSION, FORMAT_VERSIONS],
        lambda made: digest(
            digest_json(made.content("raw_rollouts")), made.file("raw_rollouts", "quarantine.jsonl").read_text()
        ),
    ),
    "records with tools": (lambda: FORMAT_VERSIONS["negtraj"], lambda made: with_tools()),
    "scored_trajectories": (
        lambda: [score.SCORED_VERSION, labels.LABELS_VERSION, versions_of_sql()],
        lambda made: digest_json(made.content("scored_trajectories")),
    ),
    "trajectory_corpus": (
        lambda: [corpus.CORPUS_VERSION, versions_of_sql()],
        lambda made: digest_json(made.content(CORPUS)),
    ),
    "training_selection": (
        lambda: select.SELECTION_VERSION,
        lambda made: digest_json(made.content("tiny_nat/training_selection")),
    ),
    "strategies": (
        lambda: {name: strategy.version for name, strategy in sorted(STRATEGIES.items())},
        lambda made: conditioned(),
    ),
    "token rows": (
        lambda: [
            tokenize._trajtok.TOKEN_FORMAT_VERSION,
            tokenize.MASK_RULE_VERSION,
            dict(sorted(VERSIONS.items())),
        ],
        lambda made: dep.rows_digest(made.root / "home", "tiny_nat"),
    ),
    "tokenized_shards": (lambda: shards.SHARDS_VERSION, lambda made: digest_json(made.content("tiny_nat/tokenized_shards"))),
    "checkpoint": (lambda: checkpoints.TRAIN_VERSION, trained),
    "evaluation_report": (
        lambda: reports.REPORT_VERSION,
        lambda made: digest_json(made.content("tiny_nat/evaluation_report")),
    ),
    "recipe_comparison": (lambda: compare.COMPARE_VERSION, lambda made: digest_json(made.content("recipe_comparison/tiny"))),
    "champion": (lambda: champion.CHAMPION_VERSION, lambda made: digest_json(made.content("champion/tiny"))),
}


def complaint(stage: str, found: dict[str, Any], golden: dict[str, Any] | None) -> str:
    """What is wrong between what a stage makes and what is recorded of it; empty where they agree."""
    if golden == found:
        return ""
    if golden is None or golden["version"] != found["version"]:
        return f"{stage}: the version is new, record its bytes with `{REFRESH}`"
    return (
        f"{stage} makes other bytes of the same inputs under the same version {found['version']}: homes in use would keep "
        f"the old ones. Raise the stage's version, or take the change back; then `{REFRESH}`"
    )


@pytest.mark.parametrize("stage", sorted(STAGES))
def test_a_stage_makes_what_its_version_promises(stage: str, made: Made) -> None:
    version, bytes_of = STAGES[stage]
    found = {"version": json.loads(json.dumps(version())), "bytes": bytes_of(made)}
    golden = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
    said = complaint(stage, found, golden.get(stage))
    if said and os.environ.get("UPDATE_GOLDEN") and "under the same version" not in said:
        GOLDEN.write_text(json.dumps({**golden, stage: found}, indent=1, sort_keys=True) + "\n")
        return
    assert said == ""


def test_the_golden_names_every_stage_and_no_other() -> None:
    assert set(json.loads(GOLDEN.read_text())) == set(STAGES)


def test_other_bytes_under_an_old_version_are_refused_and_a_new_version_wants_recording() -> None:
    golden = {"version": 1, "bytes": "a"}
    assert "under the same version 1" in complaint("x", {"version": 1, "bytes": "b"}, golden)
    assert "record its bytes" in complaint("x", {"version": 2, "bytes": "b"}, golden)
    assert complaint("x", golden, golden) == ""


def test_a_stage_whose_code_changes_its_output_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A planted change: the selection takes the latest arrivals instead of the first."""
    original = select._choose
    monkeypatch.setattr(select, "_choose", lambda judged, rule: original(judged, rule).reverse())
    changed = Made(tmp_path)
    golden = json.loads(GOLDEN.read_text())
    complaints = {
        stage: complaint(stage, {"version": golden[stage]["version"], "bytes": bytes_of(changed)}, golden[stage])
        for stage, (_, bytes_of) in STAGES.items()
        if stage in ("training_selection", "trajectory_corpus")
    }
    assert "under the same version" in complaints["training_selection"]
    assert complaints["trajectory_corpus"] == ""
