"""The graph is what runs: an asset asks the store for what its row names, and the UI's edges are the same."""

from collections import defaultdict
from pathlib import Path

import pytest

from negtraj_dagster.definitions import build_definitions
from negtraj_dagster.graph import ASSET_KINDS, RECIPE_STAGES, STUDY, keys_in_order, parse_key, upstream_keys
from negtraj_dagster.lineage import Lineage
from negtraj_dagster.plan import upstream
from negtraj_dagster.recipes import load_recipes
from negtraj_dagster.settings import load_settings
from negtraj_dagster.store import Published, Store
from negtraj_dagster.studies import load_studies, trained_recipes
from tests.support import deployment as dep


class WatchedStore(Store):
    """Notes what is asked for while an asset is built."""

    building = ""
    asked: defaultdict[str, set[str]]

    def require(self, asset: str) -> Published:
        self.asked[self.building].add(asset)
        return super().require(asset)


@pytest.fixture(scope="module")
def lineage(base_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Lineage:
    """Of a deployment with two recipes in a line, built once from nothing."""
    folder = tmp_path_factory.mktemp("graph")
    root = dep.make_deployment(folder / "d", base_model)
    with (root / "negtraj.toml").open("a") as file:  # only such a task's questions come from rollouts
        file.write('[tasks.repairs]\nkind = "recorded"\n')
    (root / "recipes" / "tiny_other.toml").write_text(dep.RECIPE.format(name="another seed", seed=1))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in dep.environment(root).items():
            patch.setenv(name, value)
        settings = load_settings()
        store = WatchedStore(settings.home)
        store.asked = defaultdict(set)
        lineage = Lineage(store, settings, dep.counting_child)
        lineage.recipes = {name: recipe for name, recipe in lineage.recipes.items() if recipe.line == "tiny"}
        for asset in keys_in_order(list(lineage.recipes.values())):
            store.building = asset
            lineage.build(asset)
    return lineage


def test_an_asset_asks_for_what_its_row_names_and_nothing_else(lineage: Lineage) -> None:
    assets = keys_in_order(list(lineage.recipes.values()))
    assert {parse_key(asset)[0].name for asset in assets} == set(ASSET_KINDS)
    assert isinstance(lineage.store, WatchedStore)
    for asset in assets:
        assert lineage.store.asked[asset] == set(upstream(lineage, asset)), asset


def test_what_an_asset_is_made_of_is_built_before_it(lineage: Lineage) -> None:
    assets = keys_in_order(list(lineage.recipes.values()))
    for place, asset in enumerate(assets):
        assert set(upstream(lineage, asset)) <= set(assets[:place]), asset


def test_the_edges_of_the_definitions_are_those_of_the_graph(lineage: Lineage, monkeypatch: pytest.MonkeyPatch) -> None:
    root = Path(lineage.settings.home).parent
    for name, value in dep.environment(root).items():
        monkeypatch.setenv(name, value)
    graph = build_definitions().resolve_asset_graph()
    edges = {
        key.to_user_string(): {parent.to_user_string() for parent in graph.get(key).parent_keys}
        for key in graph.get_all_asset_keys()
    }
    all_recipes = load_recipes(lineage.settings)
    of_studies = {asset for asset in edges if asset.startswith("study/")}
    assert set(edges) - of_studies == set(keys_in_order(list(all_recipes.values())))
    arms = trained_recipes(load_studies(lineage.settings, all_recipes)["wordtraps_effect"], all_recipes)
    assert {asset: edges.pop(asset) for asset in of_studies} == {"study/wordtraps_effect": set(upstream_keys(STUDY.name, arms))}
    whole = Lineage(lineage.store, lineage.settings, dep.counting_child)
    assert edges == {asset: set(upstream(whole, asset)) for asset in edges}


def test_a_key_names_its_kind_and_subject() -> None:
    assert parse_key("champion/l")[1] == "l"
    assert parse_key("raw_rollouts")[1] == ""
    assert [parse_key(f"r/{stage}") for stage in RECIPE_STAGES] == [(ASSET_KINDS[stage], "r") for stage in RECIPE_STAGES]
    for wrong in ("checkpoint", "nothing", "r/champion", "r/nothing"):
        with pytest.raises(KeyError):
            parse_key(wrong)
