"""A checkpoint is handed out as it was trained, with the prompt it has to be asked with; and can be asked here, too."""

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from negtraj_dagster import cli
from negtraj_dagster.lineage import Lineage
from negtraj_dagster.settings import load_settings
from negtraj_dagster.shards.reader import read_shards
from negtraj_dagster.store import Store
from tests.support import deployment as dep

LORA = '[training]\nadaptation = "lora"\n'
PROMPT_END = "Would pebble outweigh feather?"


@pytest.fixture(scope="module")
def trained(base_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A deployment whose recipe was trained, an adapter, and evaluated, for real."""
    root = dep.make_deployment(tmp_path_factory.mktemp("delivery") / "d", base_model)
    recipe = root / "recipes" / "tiny_nat.toml"
    recipe.write_text(recipe.read_text().replace("[training]\n", LORA))
    with pytest.MonkeyPatch.context() as patch:
        dep.see(patch, root)
        settings = load_settings()
        lineage = Lineage(Store(settings.home), settings, dep.real_child)
        for asset in dep.keys_in_order([lineage.recipes["tiny_nat"]]):
            lineage.build(asset)
    return root


@pytest.fixture
def root(trained: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    dep.see(monkeypatch, trained)
    return trained


@pytest.fixture(scope="module")
def exported(trained: Path) -> Path:
    folder = trained / "out" / "tiny"
    with pytest.MonkeyPatch.context() as patch:
        dep.see(patch, trained)
        assert cli.main(["export", "tiny_nat", str(folder)]) == 0
    return folder


def checkpoint_folder(root: Path) -> Path:
    (pointer,) = (root / "home" / "objects" / "tiny_nat" / "checkpoint").iterdir()
    return pointer


def test_the_folder_holds_what_was_trained(trained: Path, exported: Path) -> None:
    assert sorted(path.name for path in exported.iterdir()) == ["README.md", "adapter", "lineage.json", "model"]
    for part in ("model/model.safetensors", "adapter/adapter_model.safetensors"):
        ours, theirs = load_file(checkpoint_folder(trained) / part), load_file(exported / part)
        assert ours.keys() == theirs.keys()
        assert all(tensor.equal(theirs[name]) for name, tensor in ours.items())
    assert not list(exported.parent.glob(".*")), "what was unfinished is gone"


def test_no_place_of_this_machine_is_in_it(exported: Path) -> None:
    for path in exported.rglob("*"):
        if path.is_file():
            assert str(exported.parents[2]).encode() not in path.read_bytes(), path
    assert json.loads((exported / "adapter" / "adapter_config.json").read_text())["base_model_name_or_path"] == "tiny"


def test_the_card_has_the_prompt_as_the_rows_have_it(trained: Path, exported: Path) -> None:
    from tokenizers import Tokenizer

    card = (exported / "README.md").read_text()
    details = json.loads((exported / "lineage.json").read_text())
    prompt = card.split("```text\n")[1].split("\n```")[0]
    assert "{question}" in prompt
    assert prompt.endswith("<|im_start|>assistant\n")
    tokenizer = Tokenizer.from_file(str(exported / "model" / "tokenizer.json"))
    rows = list(read_shards(trained / "home", "tiny_nat"))
    head, tail = prompt.split("{question}")
    texts = [
        tokenizer.decode(row.input_ids.tolist(), skip_special_tokens=False) for row in rows if row.class_name == "positive"
    ]
    assert texts
    assert all(text.startswith(head) and tail in text for text in texts)
    assert details["compared"]["n_rows"] == 8
    assert details["compared"]["template_writes_prompt"] is True
    assert details["compared"]["adapter"]["top1_agreement"] == 1.0
    assert details["compared"]["adapter"]["max_difference"] < 1e-3
    assert details["files"].keys() == {
        str(path.relative_to(exported)) for path in exported.rglob("*") if path.is_file() and path.parent != exported
    }
    assert f"of {details['evaluation']['n']} questions" in card


def test_a_recipe_that_was_edited_since_changes_nothing_of_what_is_told(root: Path, tmp_path: Path) -> None:
    file = root / "recipes" / "tiny_nat.toml"
    before = file.read_text()
    file.write_text(
        before.replace("steps = 4", "steps = 900").replace('"tiny"\n[sel', '"bytes"\n[sel').replace('"nat"', '"nut"')
    )
    try:
        assert cli.main(["export", "tiny_nat", str(tmp_path / "out")]) == 0
    finally:
        file.write_text(before)
    lineage = json.loads((tmp_path / "out" / "lineage.json").read_text())
    assert (lineage["recipe"]["training"]["steps"], lineage["recipe"]["base_model"]) == (4, "tiny")
    assert "strategy `nat`" in (tmp_path / "out" / "README.md").read_text()


def test_an_empty_folder_that_is_there_is_filled(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("empty")
    monkeypatch.chdir(tmp_path / "link")
    assert cli.main(["export", "tiny_nat", "."]) == 0
    assert sorted(path.name for path in (tmp_path / "empty").iterdir()) == ["README.md", "adapter", "lineage.json", "model"]


def test_a_folder_with_something_in_it_is_left_alone(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    assert cli.main(["export", "tiny_nat", str(tmp_path)]) == 1
    assert "is there already; name a folder that is absent or empty" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    ("name", "said"),
    [("tiny_nut", "no line or recipe 'tiny_nut'; did you mean"), ("wordtraps_nat", "no checkpoint was trained yet")],
)
def test_what_cannot_be_handed_out_is_refused_by_name(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, said: str
) -> None:
    assert cli.main(["export", name, str(tmp_path / "out")]) == 1
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_adapter_that_is_not_the_merged_models_is_found_out(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from negtraj_dagster.views import delivery

    copytree = shutil.copytree

    def spoiled(source: Path, target: Path, **options: object) -> Path:
        copytree(source, target)
        for path in target.glob("adapter_model.safetensors"):
            save_file({name: tensor + 1 for name, tensor in load_file(path).items()}, path)
        return target

    monkeypatch.setattr(delivery.shutil, "copytree", spoiled)
    assert cli.main(["export", "tiny_nat", str(tmp_path / "out")]) == 1
    assert "the merged model is not its adapter" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_question_is_put_as_the_evaluation_puts_it(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["ask", "tiny_nat", PROMPT_END]) == 0
    lines = capsys.readouterr().out.splitlines()
    card = json.loads((checkpoint_folder(root) / "card.json").read_text())
    first = card["prompt"][0]["content"].replace("{question}", PROMPT_END)
    assert "\n".join(lines).startswith(f"user: {first}\nassistant: ")
    assert lines[-1].startswith(("answer: ", "no answer: turn limit"))
