"""`negtraj why` and `negtraj try` on a small corpus."""

from pathlib import Path

import polars as pl
import pytest

from negtraj_dagster import cli
from negtraj_dagster.errors import SettingsError, SqlContractError
from negtraj_dagster.lineage import Lineage
from negtraj_dagster.settings import Settings
from negtraj_dagster.store import Store
from negtraj_dagster.views.trial import Trial, trial_lines, try_filter
from negtraj_dagster.views.why.explain import Explained, explain_rollout, find_rollout
from negtraj_dagster.views.why.text import explained_lines
from tests.support.small_corpus import build_small, land_talk, small_lineage, small_settings

HEADER = 'name = "mine"\nreason = "a reason of mine"\nseverity = "drop"\nstyle = "any"\ndoc = "d"\n'


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return small_settings(tmp_path / "home")


def explained(lineage: Lineage, key: str, profile: str | None = None) -> Explained:
    return explain_rollout(lineage.store, key, lineage.scoring.registry, lineage.recipes, profile=profile)


def states(found: Explained) -> dict[str, str]:
    return {each.name: each.state for each in found.filters}


def text(found: Explained) -> str:
    return "\n".join(explained_lines(found))


def filter_file(folder: Path, body: str, *, scope: str = "row", applies_to: str = "both", more: str = "") -> Path:
    path = folder / "any name.sql"
    path.write_text(f'/*\n{HEADER}scope = "{scope}"\napplies_to = "{applies_to}"\n{more}*/\n{body}\n')
    return path


def try_on(lineage: Lineage, path: Path, **more: object) -> Trial:
    return try_filter(lineage.store, path, lineage.scoring, **more)  # type: ignore[arg-type]


# why


def test_it_tells_every_filter_in_funnel_order_with_steps_and_profiles(store: Store, settings: Settings) -> None:
    lineage, keys = build_small(store, settings)
    found = explained(lineage, keys["hostile"][:8])
    numbers = [each.number for each in found.filters]
    assert numbers == sorted(numbers)
    assert len(numbers) == len(lineage.scoring.registry.filters)
    hit = next(each for each in found.filters if each.name == "bad_format")
    assert (hit.state, [each.step for each in hit.hits], dict(hit.effects)) == ("hit", [1], {"strict": "drop"})
    assert states(found)["repeated_action_positive"] == "not applicable"
    assert states(found)["no_finish"] == "passed"
    assert {each.name: each.why_dropped for each in found.profiles} == {"paper": "", "strict": "filter bad_format"}
    assert [(each.recipe, each.is_selected, each.why_not) for each in found.selections] == [
        ("strategyqa_nat", False, "filter bad_format")
    ]


def test_a_persons_decisions_are_told(store: Store, settings: Settings) -> None:
    lineage, keys = build_small(store, settings)
    kept = explained(lineage, keys["kept"])
    assert states(kept)["no_finish"] == "overruled"
    assert "overruled by ann: its search is a lesson" in text(kept)
    assert {each.name: each.why_dropped for each in kept.profiles}["strict"] == ""
    relabelled = text(explained(lineage, keys["relabelled"]))
    assert "positive, from scorer override (version 1) by bob: No is right" in relabelled
    assert "recorded failure, task_strict success" in relabelled


def test_twins_are_told_from_both_sides(store: Store, settings: Settings) -> None:
    lineage, keys = build_small(store, settings)
    later, first = explained(lineage, keys["twin"]), explained(lineage, keys["good"])
    assert [(each.key, each.is_earlier) for each in later.twins] == [(keys["good"], True)]
    assert [(each.key, each.is_earlier) for each in first.twins] == [(keys["twin"], False)]
    assert {each.name: each.why_dropped for each in later.profiles}["strict"] == (
        f"filter exact_duplicate: of {keys['good'][:12]}"
    )


def test_nothing_of_a_rollout_reaches_the_terminal_as_a_command(store: Store, settings: Settings) -> None:
    lineage, keys = build_small(store, settings)
    said = text(explained(lineage, keys["hostile"]))
    assert not {"\x1b", "\u202e", "\x07"} & set(said)
    assert r"\x1b[2J\u202egone" in said
    assert ">> assistant, step 1\n   ^ bad_format: several Action: markers\n     Thought:" in said
    assert "   assistant, step 2" in said


def test_one_profile_can_be_asked_about(store: Store, settings: Settings) -> None:
    lineage, keys = build_small(store, settings)
    assert list(states(explained(lineage, keys["good"], "paper"))) == ["empty_trajectory"]
    with pytest.raises(SettingsError, match="did you mean 'paper'"):
        explained(lineage, keys["good"], "papre")


def test_a_key_that_fits_none_or_is_too_short_is_refused(store: Store, settings: Settings) -> None:
    lineage, keys = build_small(store, settings)
    for key in ("", keys["good"][:5], "../../etc", "nothexdigits"):
        with pytest.raises(SettingsError, match="at least 6 of the hex digits"):
            explained(lineage, key)
    with pytest.raises(SettingsError, match="no rollout has a key that begins with 'ffffffffffff'"):
        explained(lineage, "f" * 12)


def test_a_key_that_fits_several_names_some(store: Store) -> None:
    index = pl.DataFrame({"rollout_key": [f"abcdef{n:058d}" for n in range(9)]})
    with pytest.raises(SettingsError, match=r"begins the keys of 9 rollouts \(abcdef000000, .*…\); give more"):
        find_rollout(index, " ABCDEF ")


def test_what_was_not_judged_yet_is_told_as_such(store: Store, settings: Settings) -> None:
    land_talk(settings)
    lineage = small_lineage(store, settings)
    lineage.raw_rollouts()
    key = pl.read_parquet(store.require("raw_rollouts").folder / "rollouts.parquet")["rollout_key"][0]
    unscored = explained(lineage, key)
    assert set(states(unscored).values()) == {"not judged"}
    assert "scored_trajectories was not materialized yet" in text(unscored)
    lineage.scored_trajectories()
    scored = explained(lineage, key)
    assert states(scored)["bad_format"] == "passed"
    assert states(scored)["exact_duplicate"] == "not judged"
    assert "trajectory_corpus/strategyqa was not materialized yet" in text(scored)
    assert "nothing was selected yet" in text(scored)


def test_a_filter_that_was_edited_since_is_not_told_as_passed(store: Store, settings: Settings, tmp_path: Path) -> None:
    lineage, keys = build_small(store, settings)
    mine = tmp_path / "sql" / "filters" / "020_no_finish.sql"
    mine.parent.mkdir(parents=True)
    shipped = next(each for each in lineage.scoring.registry.filters if each.name == "no_finish")
    mine.write_text(shipped.text + "limit 7")
    edited = Lineage(store, settings.model_copy(update={"sql_dirs": (mine.parent.parent,)}), lineage.run_child)
    assert states(explained(edited, keys["good"]))["no_finish"] == "not judged"
    told = [each.why for each in explained(edited, keys["unfinished"]).filters if each.name == "no_finish"]
    assert told == ["scored_trajectories was made with another version of it", told[1]]
    assert "which the present SQL files do not have" in told[1]


# try


def test_a_row_filter_is_tried_on_the_classes_it_is_about(store: Store, settings: Settings, tmp_path: Path) -> None:
    lineage, keys = build_small(store, settings)
    body = "select rollout_key, step, left(content, 9) as detail from steps where contains(content, 'look')"
    trial = try_on(lineage, filter_file(tmp_path, body, applies_to="negative"))
    found = {row["label"]: (row["n_rollouts"], row["n_applicable"], row["n_hit"]) for row in trial.classes}
    assert found == {"negative": (3, 3, 1), "positive": (3, 0, 0), "unknown": (1, 0, 0)}
    assert [(each["rollout_key"], each["step"], each["detail"]) for each in trial.samples] == [
        (keys["unfinished"], 1, "Thought: ")
    ]
    overlap = {row["filter"]: (row["n_both"], row["n_only_this"], row["n_only_other"]) for row in trial.overlaps}
    assert overlap["no_finish"] == (1, 0, 0)  # that of the rollout `kept` is overruled
    assert overlap["bad_format"] == (0, 1, 1)
    assert (trial.n_hit, trial.n_new) == (1, 0)


@pytest.mark.parametrize("scope", ["group", "reference", "corpus"])
def test_set_level_filters_see_what_the_corpus_sees(store: Store, settings: Settings, tmp_path: Path, scope: str) -> None:
    lineage, keys = build_small(store, settings)
    bodies = {
        "group": "select rollout_key, null as step, said as detail, null as earlier_key from signatures",
        "reference": "select rollouts.rollout_key, null as step, questions.question as detail from rollouts, questions "
        "where questions.question_id = rollouts.question_id and rollouts.source = 'good'",
        "corpus": "select rollout_key, null as step, 'alike' as detail, other_key as earlier_key from pairs where is_earlier",
    }
    trial = try_on(lineage, filter_file(tmp_path, bodies[scope], scope=scope))
    hit = {each["rollout_key"] for each in trial.samples}
    assert hit == {"group": set(keys.values()), "reference": {keys["good"]}, "corpus": {keys["twin"]}}[scope]


def test_it_changes_nothing(store: Store, settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, keys = build_small(store, settings)
    before = {path: path.stat().st_mtime_ns for path in settings.home.rglob("*") if path.is_file()}
    path = filter_file(tmp_path, "select rollout_key, 1 as step, '\x1b[2Jx' as detail from rollouts")
    (settings.home / "negtraj.toml").write_text("[wordtraps]\nenabled = false\n")
    assert cli.main(["try", str(path), "--limit", "2"]) == 0
    assert cli.main(["why", keys["good"]]) == 0
    said = capsys.readouterr().out
    assert r"\x1b[2Jx" in said
    assert "\x1b" not in said
    after = {path: path.stat().st_mtime_ns for path in settings.home.rglob("*") if path.is_file()}
    assert {path for path, stamp in after.items() if before.get(path) != stamp} == {settings.home / "negtraj.toml"}


@pytest.mark.parametrize(
    ("body", "scope", "message"),
    [
        ("select rollout_key,\n  nothing as detail\nfrom steps", "row", r"any name\.sql, line \d+: .*nothing"),
        ("select rollout_key from rollouts", "row", "returns rollout_key; expected rollout_key, step and detail"),
        ("select rollout_key, 1 as step, content as detail from steps", "group", "steps"),
        ("select 1; select 2", "row", "expected one SELECT; give each query a file of its own"),
        ("select rollout_key, 1 as step, $n as detail from steps", "row", r"\$n is not among the header's params"),
    ],
    ids=["unknown column", "too few columns", "a table of another scope", "two statements", "undeclared parameter"],
)
def test_a_filter_that_breaks_the_contract_is_told_where_and_what_to_do(
    store: Store, settings: Settings, tmp_path: Path, body: str, scope: str, message: str
) -> None:
    lineage, _ = build_small(store, settings)
    with pytest.raises(SqlContractError, match=message):
        try_on(lineage, filter_file(tmp_path, body, scope=scope))


def test_a_filter_that_never_ends_is_stopped(tmp_path: Path) -> None:
    settings = small_settings(tmp_path / "home", deadline_s=2.0)
    lineage, _ = build_small(Store(settings.home), settings)
    body = (
        "with recursive forever as (select 1 as n union all select n + 1 from forever) "
        "select rollout_key, 1 as step, 'x' as detail from rollouts where (select max(n) from forever) > 0"
    )
    with pytest.raises(SqlContractError, match=r"any name\.sql: stopped after its deadline of 2 s"):
        try_on(lineage, filter_file(tmp_path, body))


def test_a_file_or_task_that_is_not_there_is_refused(store: Store, settings: Settings, tmp_path: Path) -> None:
    lineage, _ = build_small(store, settings)
    with pytest.raises(SettingsError, match="no such file"):
        try_on(lineage, tmp_path / "none.sql")
    path = filter_file(tmp_path, "select rollout_key, 1 as step, 'x' as detail from rollouts")
    with pytest.raises(SettingsError, match="did you mean 'strategyqa'"):
        try_on(lineage, path, task="strategyq")
    assert "0 rollouts hit" in "\n".join(trial_lines(try_on(lineage, path, task="wordtraps")))
