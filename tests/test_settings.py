from pathlib import Path

import pytest

from negtraj_dagster.errors import SettingsError
from negtraj_dagster.settings import load_settings


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


def test_a_file_that_is_not_toml_is_named_with_the_line() -> None:
    write("[wordtraps\n")
    with pytest.raises(SettingsError, match=r"negtraj.toml: not valid TOML: .*line 1"):
        load_settings()


def test_a_missing_nat_folder_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEGTRAJ_NAT_DIR", "/no/such/folder")
    with pytest.raises(SettingsError, match=r"NEGTRAJ_NAT_DIR = /no/such/folder: no such folder"):
        load_settings()
