from pathlib import Path

import pytest

from negtraj_dagster.commands.dagster_home import prepare_dagster_home
from negtraj_dagster.definitions import build_definitions
from negtraj_dagster.errors import SettingsError
from negtraj_dagster.settings import did_you_mean, load_settings


def write(text: str) -> Path:
    home = load_settings().home
    home.mkdir(parents=True, exist_ok=True)
    (home / "negtraj.toml").write_text(text)
    return home / "negtraj.toml"


def test_without_a_file_the_defaults_hold() -> None:
    assert load_settings().wordtraps.enabled


def test_an_unknown_key_is_refused_with_the_nearest_known_one() -> None:
    file = write("[wordtraps]\nenabeld = false\n")
    with pytest.raises(SettingsError, match=r"unknown key 'wordtraps.enabeld'; did you mean 'enabled'\?") as caught:
        load_settings()
    assert str(file) in str(caught.value)


def test_every_fault_of_a_file_is_listed_at_once() -> None:
    write('lnading = "x"\n[wordtraps]\nseed = "seven"\n')
    with pytest.raises(SettingsError, match=r"(?s)wordtraps.seed = 'seven'.*lnading"):
        load_settings()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            '[sources.mine]\ntask = "wordtraps"\nformat = "nat"\n',
            r"sources.mine = .*: Value error, either path, a folder, or url, as in s3://bucket/traces$",
        ),
        ("[base_models]\nqwen = 3\n", r"  base_models.qwen = 3: expected a table with folder$"),
        (
            "[base_models.qwen]\nfoldr = 3\n",
            r"(?s)folder is missing \(a path\).*'base_models.qwen.foldr'; did you mean 'folder'",
        ),
    ],
    ids=["source without path", "base model no table", "base model's key"],
)
def test_a_fault_inside_a_named_table_says_what_the_table_takes(text: str, message: str) -> None:
    write(text)
    with pytest.raises(SettingsError, match=message):
        load_settings()


def test_few_known_words_are_listed_beside_the_nearest_and_many_are_not() -> None:
    assert did_you_mean("pathh", ["path", "task"]) == "; did you mean 'path'?; known: path, task"
    assert did_you_mean("pathh", ["path", *"abcdef"]) == "; did you mean 'path'?"
    assert did_you_mean("zzzz", ["path", *"abcdef"]) == "; known: a, b, c, d, e, f, path"


def test_a_file_that_is_not_toml_is_named_with_the_line() -> None:
    write("[wordtraps\n")
    with pytest.raises(SettingsError, match=r"negtraj.toml: not valid TOML: .*line 1"):
        load_settings()


def test_a_home_with_a_backslash_is_refused_with_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NEGTRAJ_HOME", str(tmp_path / "a\\b"))
    with pytest.raises(SettingsError, match=r"NEGTRAJ_HOME = .*backslash.*choose a folder without one"):
        load_settings()


def test_a_missing_nat_folder_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEGTRAJ_NAT_DIR", "/no/such/folder")
    with pytest.raises(SettingsError, match=r"NEGTRAJ_NAT_DIR = /no/such/folder: no such folder"):
        load_settings()


@pytest.mark.parametrize("name", ["h?x", "h%20x", "a?/b", "%e4"])
def test_a_folder_that_dagster_would_write_beside_is_refused_before_anything_is_written(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("NEGTRAJ_HOME", str(tmp_path / name))
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    with pytest.raises(SettingsError, match=r"DAGSTER_HOME = .*export DAGSTER_HOME"):
        prepare_dagster_home()
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / name))
    with pytest.raises(SettingsError, match="DAGSTER_HOME = "):
        build_definitions()
    assert list(tmp_path.iterdir()) == []


def test_a_home_of_any_name_goes_with_a_plain_folder_for_dagster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NEGTRAJ_HOME", str(tmp_path / "h?x"))
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "a#b 100% {c}"))
    assert prepare_dagster_home() == tmp_path / "a#b 100% {c}"
