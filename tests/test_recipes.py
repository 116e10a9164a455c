import traceback
from pathlib import Path

import pytest

from negtraj_dagster.errors import SettingsError
from negtraj_dagster.recipes import Recipe, load_recipes
from negtraj_dagster.settings import BaseModelSource, Settings

MINIMAL = """
description = "a test arm"
task = "wordtraps"
line = "test"
role = "study"
base_model = "wordtraps"
[strategy]
name = "nat"
[training]
steps = 3
"""


def load(settings: Settings, tmp_path: Path, **files: str) -> dict[str, Recipe]:
    folder = tmp_path / "recipes"
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / f"{name}.toml").write_text(text)
    return load_recipes(settings.model_copy(update={"recipe_dirs": (folder,)}))


def test_the_shipped_recipes_load(settings: Settings) -> None:
    recipes = load_recipes(settings)
    assert set(recipes) == {"wordtraps_vanilla", "wordtraps_nut", "wordtraps_nat", "strategyqa_nat"}


def test_the_wordtraps_arms_differ_in_strategy_alone(settings: Settings) -> None:
    recipes = load_recipes(settings)
    arms = [recipes[f"wordtraps_{name}"] for name in ("vanilla", "nut", "nat")]
    shared = {arm.slice_digest("task", "selection", "shards", "training", "evaluation", "base_model") for arm in arms}
    assert len(shared) == 1
    assert len({arm.strategy.name for arm in arms}) == 3


def test_an_unknown_key_is_refused_with_file_place_and_nearest_key(settings: Settings, tmp_path: Path) -> None:
    text = MINIMAL.replace("steps = 3", "stepz = 3\nsteps = 3")
    with pytest.raises(SettingsError, match=r"mine.toml:\n  unknown key 'training.stepz'; did you mean 'steps'\?"):
        load(settings, tmp_path, mine=text)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            'name = "nat"',
            'name = "natt"',
            r"strategy.name = 'natt': unknown strategy; did you mean 'nat'\?; known: nat, nut, vanilla$",
        ),
        ('task = "wordtraps"', 'task = "wordtrap"', r"mine.toml: task = 'wordtrap': unknown task; did you mean 'wordtraps'\?"),
        (
            'base_model = "wordtraps"',
            'base_model = "qwen"',
            r"base_model = 'qwen': unknown base model; known: bytes, smollm2, wordtraps$",
        ),
        (
            "[strategy]",
            '[selection]\nprofile = "stric"\n[strategy]',
            r"mine.toml: selection.profile = 'stric': unknown quality profile; did you mean 'strict'\?; known: paper, strict$",
        ),
        ("steps = 3", "steps = 0", r"training.steps = 0: expected greater than or equal to 1$"),
        ("steps = 3", 'steps = "many"', r"training.steps = 'many': expected a valid integer"),
        ("steps = 3", "steps = 3\nzero_stage = 4", r"training.zero_stage = 4: expected 0, 1, 2 or 3$"),
        ('role = "study"', 'role = "hero"', r"role = 'hero': expected candidate, control or study$"),
        (
            'role = "study"',
            'role = "studdy"',
            r"role = 'studdy': expected candidate, control or study; did you mean 'study'\?$",
        ),
        ('role = "study"', "", r"mine.toml:\n  role is missing \(candidate, control or study\)$"),
        ('task = "wordtraps"', "", r"mine.toml:\n  task is missing \(asdiv, .*, svamp or wordtraps\)$"),
        (
            "steps = 3",
            'steps = 3\nzero_stage = 0\ndtype = "bf16"',
            r"training.dtype = 'bf16': .*fp32, for zero_stage = 0: .*zero_stage = 1",
        ),
        ("steps = 3", "", r"mine.toml:\n  training.steps is missing \(a whole number\)$"),
        ('[strategy]\nname = "nat"', "", r"mine.toml:\n  strategy is missing \(a table with name\)$"),
        ('[strategy]\nname = "nat"', 'strategy = "nat"', r"strategy = 'nat': expected a table with name$"),
    ],
    ids=[
        "strategy",
        "task",
        "base_model",
        "profile",
        "steps",
        "steps of another type",
        "zero_stage",
        "role",
        "nearest role",
        "no role",
        "no task",
        "bf16 without zero",
        "no steps",
        "no strategy",
        "strategy no table",
    ],
)
def test_a_wrong_word_is_refused_by_place(settings: Settings, tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        load(settings, tmp_path, mine=MINIMAL.replace(old, new))


def test_a_wrong_value_is_shown_in_part_where_it_is_long(settings: Settings, tmp_path: Path) -> None:
    text = MINIMAL.replace("steps = 3", f'steps = "{"x" * 999}"')
    with pytest.raises(SettingsError, match=r"training.steps = 'x{79}…: expected"):
        load(settings, tmp_path, mine=text)


def test_the_traceback_ends_with_our_words_and_holds_no_library_s(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        load(settings, tmp_path, mine=MINIMAL.replace('role = "study"', ""))
    told = "".join(traceback.format_exception(caught.value))
    assert "pydantic" not in told
    assert told.endswith("role is missing (candidate, control or study)\n")


def test_a_parent_that_is_no_name_is_refused(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"mine.toml: extends = \['_wordtraps'\]: expected one recipe's name"):
        load(settings, tmp_path, mine='extends = ["_wordtraps"]\n')


def test_a_micro_batch_need_neither_divide_the_batch_nor_stay_below_it(settings: Settings, tmp_path: Path) -> None:
    text = MINIMAL + "batch_size = 4\nmicro_batch_size = {}\n"
    recipes = load(settings, tmp_path, larger=text.format(64), uneven=text.format(3))
    assert (recipes["larger"].training.micro_batch_size, recipes["uneven"].training.micro_batch_size) == (64, 3)


def test_a_recipe_can_extend_another_and_override_one_key(settings: Settings, tmp_path: Path) -> None:
    child = 'extends = "mine"\n[training]\nlr = 0.5\n'
    recipes = load(settings, tmp_path, mine=MINIMAL, child=child)
    assert recipes["child"].training.lr == 0.5
    assert recipes["child"].training.steps == 3


@pytest.mark.parametrize(
    ("base_model", "adaptation", "lr"),
    [("wordtraps", "full", 2e-3), ("mine", "full", 1e-5), ("mine", "lora", 2e-4)],
    ids=["made here", "all weights of a model of one's own", "its adapters"],
)
def test_a_learning_rate_left_out_fits_the_model(
    settings: Settings, tmp_path: Path, base_model: str, adaptation: str, lr: float
) -> None:
    own = settings.model_copy(update={"base_models": {"mine": BaseModelSource(folder=tmp_path)}})
    text = MINIMAL.replace('base_model = "wordtraps"', f'base_model = "{base_model}"') + f'adaptation = "{adaptation}"\n'
    assert load(own, tmp_path, arm=text)["arm"].training.lr == lr


def test_extending_nothing_and_extending_oneself_are_refused(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"extends = 'wordtraps_natt': no such recipe; did you mean 'wordtraps_nat'\?"):
        load(settings, tmp_path, mine='extends = "wordtraps_natt"\n')
    with pytest.raises(SettingsError, match=r"extends itself: mine -> other -> mine"):
        load(settings, tmp_path, mine='extends = "other"\n', other='extends = "mine"\n')


def test_a_user_recipe_overrides_a_shipped_one_of_its_name(settings: Settings, tmp_path: Path) -> None:
    recipes = load(settings, tmp_path, wordtraps_nat=MINIMAL)
    assert recipes["wordtraps_nat"].training.steps == 3
