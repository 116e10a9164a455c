"""`negtraj show` and preview.html on a built home: what is found, what is marked, and that no rollout's text does anything."""

import html
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import dagster as dg
import polars as pl
import pytest

from negtraj_dagster import cli
from negtraj_dagster.defs.checks import build_shards_checks
from negtraj_dagster.defs.resources import Workspace
from negtraj_dagster.exit_codes import USAGE
from negtraj_dagster.lineage import Lineage
from negtraj_dagster.printable import visible
from negtraj_dagster.settings import load_settings
from negtraj_dagster.shards import page
from negtraj_dagster.shards.preview import Piece, ShownRow, marked_text, merged, pieces
from negtraj_dagster.shards.show import Found, find_rows, row_lines
from negtraj_dagster.store import Store
from negtraj_dagster.upkeep import present_shards
from tests.support import deployment as dep

UPSTREAM = ("question_sets", "base_model/tiny", "raw_rollouts", "scored_trajectories", "trajectory_corpus/strategyqa")
STAGES = ("training_selection", "tokenized_shards")
HOSTILE = "<script>alert(1)</script> & \x1b[31mred\x1b]0;title\x07 \u202eevil\u202c ```` <|im_end|> \x9b2J \r"
NO_TOOLS = {"name": "search", "arguments": "{}"}
ESCAPES = re.compile(r"\x1b\[[0-9;]*m")


def build(*recipes: str) -> None:
    """All up to the recipes' shards."""
    settings = load_settings()
    lineage = Lineage(Store(settings.home), settings, dep.counting_child)
    for asset in (*UPSTREAM, *(f"{recipe}/{stage}" for recipe in recipes for stage in STAGES)):
        lineage.build(asset)


def special_rollouts() -> list[dict[str, Any]]:
    """Right answers: one hostile, one of three weights, two that call tools without tool schemas."""
    hostile = dep.rollout(0, 10) | {"source": "hostile"}
    hostile["messages"][0]["content"] = f"Thought: {HOSTILE}.\nAction: search[pebble]"
    hostile["messages"][1]["content"] = f"Observation: {HOSTILE}"
    weighted = dep.rollout(1, 11) | {"source": "weighted"}
    weighted["messages"][0]["loss"] = 0.5
    content = weighted["messages"][2]["content"]
    weighted["messages"][2]["ranges"] = [{"field": "content", "start": 0, "end": 7, "weight": 2.0}]
    assert content[:7] == "Thought"
    silent = [dep.rollout(n, 12) | {"source": f"calls {n}"} for n in (0, 2)]
    for row in silent:
        row["messages"][0]["tool_calls"] = [NO_TOOLS]
    return [hostile, weighted, *silent]


@pytest.fixture(scope="module")
def root(base_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A deployment whose three recipes are built up to their shards: plain, short rows, few rejections allowed."""
    folder = tmp_path_factory.mktemp("show")
    made = dep.make_deployment(folder / "d", base_model)
    dep.write_lines(dep.landed(made)[0].with_name("a-first.jsonl"), special_rollouts())
    recipe = dep.RECIPE.format(name="tiny", seed=0)
    short = recipe.replace("max_tokens = 2048", 'max_tokens = 410\nover_length = "cut_at_turn"')
    (made / "recipes" / "tiny_short.toml").write_text(short)
    (made / "recipes" / "tiny_lax.toml").write_text(recipe.replace("[shards]", "[shards]\nmax_unproved_share = 0.02"))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in dep.environment(made).items():
            patch.setenv(name, value)
        build("tiny_nat", "tiny_short", "tiny_lax")
    return made


@pytest.fixture(autouse=True)
def _deployment(root: Path, _own_home: None, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in dep.environment(root).items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("NO_COLOR", raising=False)


def store() -> Store:
    return Store(load_settings().home)


def shards_folder(recipe: str = "tiny_nat") -> Path:
    return store().require(f"{recipe}/tokenized_shards").folder


def index(recipe: str = "tiny_nat") -> pl.DataFrame:
    return pl.read_parquet(shards_folder(recipe) / "index.parquet")


def rollout_key(source: str) -> str:
    rollouts = pl.read_parquet(store().require("raw_rollouts").folder / "rollouts.parquet")
    return str(rollouts.filter(pl.col("source") == source)["rollout_key"].item())


def find(key: str, recipe: str | None = None) -> Found:
    with present_shards(load_settings(), recipe) as opened:
        return find_rows(opened, key)


def show(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert cli.main(["show", *arguments]) == 0
    return capsys.readouterr().out


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert cli.main(["show", *arguments]) in (1, 2)
    return capsys.readouterr().err


# What is found


def test_a_rollouts_rows_are_shown_from_every_recipe_with_where_they_lie(capsys: pytest.CaptureFixture[str]) -> None:
    row = index().row(5, named=True)
    said = show(capsys, row["rollout_key"][:12])
    assert [line.split()[0] for line in said.splitlines() if "tokens trained" in line] == ["tiny_lax", "tiny_nat", "tiny_short"]
    assert f"{row['class']}  weight 1 x 1  {row['n_trained']} of {row['n_tokens']} tokens trained" in said
    assert f"  token row  {row['token_key']}\n" in said
    assert re.search(r"  segment    [0-9a-f]{16}/[0-9a-f]{64}\n  template   chatml\n", said)
    assert said.count("⟦Thought: look up case") == 3


def test_a_token_rows_key_finds_it_in_the_named_recipe_alone(capsys: pytest.CaptureFixture[str]) -> None:
    row = index().row(7, named=True)
    said = show(capsys, row["token_key"][:10].upper(), "--recipe", "tiny_nat")
    assert said.count("tokens trained") == 1
    assert f"  rollout    {row['rollout_key']}\n" in said


def test_the_text_is_the_rows_tokens_and_the_marks_are_its_mask() -> None:
    for row in find(index()["rollout_key"][9]).rows:
        text = "".join(piece.text for piece in row.pieces)
        assert len(text.encode()) > 100
        assert text.count("<|im_end|>") == sum(piece.is_control and piece.text == "<|im_end|>" for piece in row.pieces)
        trained = [each["text"] for each in merged(row.pieces) if each["weight"]]
        assert all(each.startswith("Thought: ") and each.endswith("<|im_end|>") for each in trained)


def test_a_row_that_was_cut_says_what_it_lacks(capsys: pytest.CaptureFixture[str]) -> None:
    manifest = store().require("tiny_short/tokenized_shards")
    assert manifest.details["n_cut"] > 0
    folders = [store().folder(name) for name in manifest.details["segments"]]
    keys = pl.concat(pl.read_parquet(folder / "keys.parquet") for folder in folders).filter(pl.col("n_left_out") > 0)
    mine = index("tiny_short").join(keys.select("token_key", "detail"), on="token_key").row(0, named=True)
    assert f"  {mine['detail']}\n" in show(capsys, mine["token_key"], "--recipe", "tiny_short")


def test_a_rejected_rollout_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    said = show(capsys, rollout_key("calls 0"), "--recipe", "tiny_nat")
    assert "tiny_nat  positive  rejected: tools_missing\n" in said
    assert 'shards.missing_tools = "allow"' in said


def test_all_rejected_rows_are_counted_and_the_first_printed(capsys: pytest.CaptureFixture[str]) -> None:
    said = show(capsys, "--recipe", "tiny_nat", "--rejected", "--limit", "1")
    assert said.startswith("tiny_nat        2  tools_missing: land the tools' schemas (`tools`) with the rollouts, or shards.")
    assert (said.count("rejected: tools_missing"), "1 more: --limit 2" in said) == (1, True)
    short = show(capsys, "--recipe", "tiny_short", "--rejected", "--reason", "tools_missing")
    assert short.count("rejected: tools_missing") == 2
    assert "'tools_missing'" in refused(capsys, "--recipe", "tiny_nat", "--rejected", "--reason", "tools_mising")


@pytest.mark.parametrize(
    ("key", "message"),
    [("abc", "at least 6 of the hex digits"), ("train-17", "at least 6 of the hex digits"), ("000000", "the nearest is '0")],
    ids=["short", "no digits", "unknown"],
)
def test_a_key_that_leads_nowhere_is_refused_with_help(capsys: pytest.CaptureFixture[str], key: str, message: str) -> None:
    assert message in refused(capsys, key)


def test_a_wrong_digit_is_answered_with_the_nearest_key(capsys: pytest.CaptureFixture[str]) -> None:
    key = index()["rollout_key"][3]
    wrong = key[:9] + ("0" if key[9] != "0" else "1")
    assert f"the nearest is '{key[:14]}'" in refused(capsys, wrong)


def test_a_beginning_of_too_many_keys_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("negtraj_dagster.shards.show.MIN_KEY_CHARS", 1)
    assert "give more of its digits" in refused(capsys, "a")


@pytest.mark.parametrize(
    "arguments", [(), ("abcdef", "--rejected"), ("--rejected", "--html", "x"), ("abcdef", "--reason", "x")]
)
def test_arguments_that_make_no_sense_together_are_refused(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    assert cli.main(["show", *arguments]) == USAGE
    assert "see `negtraj show --help`" in capsys.readouterr().err


def test_a_recipe_without_a_key_shows_its_first_rows(capsys: pytest.CaptureFixture[str]) -> None:
    text = show(capsys, "--recipe", "tiny_nat", "--limit", "2")
    first = index()["rollout_key"].to_list()[:2]
    assert [line.split()[1] for line in text.splitlines() if line.strip().startswith("rollout ")] == first
    assert "no recipe 'tiny_mat'; did you mean 'tiny_nat'" in refused(capsys, "--recipe", "tiny_mat")


def test_an_unknown_recipe_and_one_without_shards_say_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert "did you mean 'tiny_nat'" in refused(capsys, "abcdef", "--recipe", "tiny_nut")
    said = refused(capsys, "abcdef", "--recipe", "wordtraps_nat")
    assert "wordtraps_nat has no tokenized shards with rows; run `dagster asset materialize" in said


def test_a_home_without_shards_says_what_to_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NEGTRAJ_HOME", str(tmp_path / "none"))
    assert "no such home" in refused(capsys, "abcdef")
    (tmp_path / "none").mkdir()
    assert "no recipe has tokenized shards with rows; run `dagster asset materialize" in refused(capsys, "abcdef")


def test_showing_changes_nothing(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def tree() -> dict[str, int]:
        return {str(path): path.stat().st_mtime_ns for path in root.rglob("*")}

    before = tree()
    show(capsys, index()["rollout_key"][0])
    show(capsys, "--rejected")
    assert tree() == before


def test_shards_of_another_tokenizer_are_not_read_back(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = root / "model" / "tokenizer.json"
    text = path.read_text()
    path.write_text(text + " ")
    try:
        assert "not the tokenizer that tiny_nat's present shards" in refused(capsys, "abcdef", "--recipe", "tiny_nat")
    finally:
        path.write_text(text)


# What is marked


def test_weights_other_than_one_stand_before_their_stretch(capsys: pytest.CaptureFixture[str]) -> None:
    said = show(capsys, rollout_key("weighted"), "--recipe", "tiny_nat")
    assert "⟦0.5: Thought: look up case 11." in said
    assert "⟦2: Thought⟧⟦: so it is." in said


def test_colours_follow_the_weights_and_marks_go(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    said = show(capsys, rollout_key("weighted"), "--recipe", "tiny_nat")
    assert "⟦" not in said
    for styled in (
        "\x1b[33;1m0.5:\x1b[0m\x1b[33mThought: look up case 11.\x1b[0m",
        "\x1b[35;1m2:\x1b[0m\x1b[35mThought\x1b[0m\x1b[32m: so it is.\x1b[0m",
        "\x1b[32;7m<|im_end|>\x1b[0m",
        "\x1b[36m<|im_start|>\x1b[0m\x1b[2muser\x1b[0m",
    ):
        assert styled in said


@pytest.mark.parametrize(("variable", "switches"), [("NO_COLOR", ()), ("UNRELATED", ("--no-colour",))], ids=["env", "switch"])
def test_a_terminal_without_colour_is_given_marks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], variable: str, switches: tuple[str, ...]
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv(variable, "1")
    said = show(capsys, rollout_key("weighted"), *switches)
    assert ("\x1b" in said, "⟦" in said) == (False, True)


def test_a_rows_pieces_are_cut_at_weights_and_around_control_tokens() -> None:
    class Reader:
        added: ClassVar = {9: "<end>"}

        def read(self, ids: list[int]) -> str:
            return "".join(map(str, ids))

    row = {"input_ids": [9, 9, 1, 2, 3, 4, 9], "span_start": [3, 5], "span_end": [5, 7], "span_weight": [1.0, 0.5]}
    made = pieces(row, Reader())  # type: ignore[arg-type]
    control = [Piece("<end>", 0.0, True), Piece("<end>", 0.0, True)]
    assert made == [*control, Piece("1", 0.0), Piece("23", 1.0), Piece("4", 0.5), Piece("<end>", 0.5, True)]
    assert marked_text(merged(made)) == "<end><end>1⟦23⟧⟦0.5: 4<end>⟧"


# What a rollout's text cannot do


def assert_harmless(said: str) -> None:
    assert not [char for char in said if visible(char) != char]


@pytest.mark.parametrize("has_colour", [True, False])
def test_no_escape_of_a_rollout_reaches_the_terminal(has_colour: bool) -> None:
    (row,) = find(rollout_key("hostile"), "tiny_nat").rows
    said = "\n".join(row_lines(row, has_colour=has_colour))
    assert_harmless(ESCAPES.sub("", said) if has_colour else said)
    assert r"\x1b[31mred\x1b]0;title\x07 \u202eevil\u202c ```` <|im_end|> \x9b2J \r" in said


def test_text_that_reads_like_a_control_token_is_not_shown_as_one() -> None:
    (row,) = find(rollout_key("hostile"), "tiny_nat").rows
    assert [piece.is_control for piece in row.pieces if "<|im_end|> \x9b2J" in piece.text] == [False, False]


def test_joiners_stay_and_all_else_without_a_shape_is_spelled_out() -> None:
    assert visible("é 你好\u3000\u00a0👨\u200d👩 a\tb\n") == "é 你好\u3000\u00a0👨\u200d👩 a\tb\n"
    assert visible("\x00\x7f\x85\u200b\u2028\u2066\ufeff\U000e0041") == r"\x00\x7f\x85\u200b\u2028\u2066\ufeff\U000e0041"


def page_text(recipe: str = "tiny_nat") -> str:
    return (shards_folder(recipe) / "preview.html").read_text(encoding="utf-8")


def tags(text: str) -> set[str]:
    return set(re.findall(r"<\s*/?\s*(\w+)", text))


KNOWN_TAGS = tags(
    "<html><head><meta><title><style><body><h1><h2><h3><p><br><span><sup><i><pre><code><section><table><tr><th><td>"
)


def test_the_page_holds_the_previews_and_nothing_of_a_rollout_is_markup() -> None:
    text = page_text()
    assert tags(text) <= KNOWN_TAGS
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; \\x1b[31mred" in text
    assert_harmless(text)
    assert "Content-Security-Policy\" content=\"default-src 'none'" in text
    assert not re.search(r"\s(on\w+|src|href)\s*=", re.sub(r"<pre>.*?</pre>", "", text, flags=re.DOTALL))
    for row in json.loads((shards_folder() / "previews.json").read_text(encoding="utf-8")):
        assert row["token_key"] in text


def test_the_page_counts_rows_turns_and_reasons() -> None:
    text, published = page_text(), store().require("tiny_nat/tokenized_shards")
    cells = dict(re.findall(r"<tr><td>([^<]*)</td><td>([^<]*)</td></tr>", text))
    assert cells["rows"] == str(published.content["n_rows"])
    assert cells["rows rejected"] == "2"
    assert cells["trained share"] == f"{published.details['trained_share']:.1%}"
    assert int(cells["proved turns, of all rows in the same segments"]) >= 2 * published.content["n_rows"] - 2
    assert "<code>tools_missing</code></td><td>2</td>" in text
    assert text.count("it calls tools, but no tool schemas came with it") == 2


def test_the_page_colours_by_weight_and_keeps_the_text() -> None:
    row = next(row for row in find(rollout_key("weighted"), "tiny_nat").rows)
    text = page.rows_page("t", [row], [])
    assert '<span class="low"><sup>0.5</sup>Thought: look up case 11.' in text
    assert '<span class="high"><sup>2</sup>Thought</span><span class="one">: so it is.' in text
    assert '<span class="pill">&lt;|im_end|&gt;</span></span>' in text
    shown = re.sub(r"<sup>.*?</sup>|<[^>]*>", "", text.split("<pre>")[1].split("</pre>")[0])
    assert html.unescape(shown) == "".join(piece.text for piece in row.pieces)


def long_rows(*texts: str) -> Iterator[ShownRow]:
    for n, text in enumerate(texts):
        row = (Piece(text, 0.0), Piece(text, 1.0), Piece("<|im_end|>", 1.0, True)) * (8 if n else 1)
        yield ShownRow("r", "positive", "ab" * 32, "cd" * 32, 1.0, 1, 10, 5, 0, "", Path("a/b"), "chatml", row)


def test_the_page_stays_small_whatever_the_rollouts_hold() -> None:
    rows = list(long_rows(*["\U000e0041&<" * 30_000] * 6))
    text = page.preview_page("r", rows, counts={}, rejected={}, samples=[])
    assert len(text.encode()) < 200_000
    assert "characters are not shown here …" in text
    assert "characters more; negtraj show cdcdcdcdcdcd shows them …" in text
    whole = page.rows_page("t", list(long_rows("x" * 50_000)), [])
    assert whole.count("x" * 50_000) == 2


def test_the_page_of_found_rows_is_written_where_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "rows.html"
    assert show(capsys, rollout_key("hostile"), "--html", str(file)) == f"written: {file}\n"
    text = file.read_text(encoding="utf-8")
    assert tags(text) <= KNOWN_TAGS
    assert text.count("<section>") == 3
    assert "name another file" in refused(capsys, rollout_key("hostile"), "--html", str(tmp_path))


def test_the_ui_is_given_the_page_and_a_preview_without_escapes() -> None:
    from negtraj_dagster.defs.plots import preview_markdown

    assert_harmless(preview_markdown(shards_folder() / "previews.json").md_str)


# The check


@pytest.mark.parametrize(("recipe", "passes"), [("tiny_nat", False), ("tiny_lax", True)])
def test_rows_that_cannot_be_proved_block_training_beyond_the_recipes_share(recipe: str, passes: bool) -> None:
    checks = build_shards_checks(Lineage(store(), load_settings(), dep.counting_child).recipes[recipe])
    (check,) = (check for check in checks if check.check_key.name == "rows_are_proved")
    assert all(spec.blocking for spec in check.check_specs)
    outcome = check(workspace=Workspace())
    assert isinstance(outcome, dg.AssetCheckResult)
    assert outcome.passed is passes
    said = {name: value.value for name, value in outcome.metadata.items()}
    assert said["tools_missing"] == 2
    assert said["limit"] == (0.02 if passes else 0.0)
    assert said["share"] == pytest.approx(2 / (index(recipe).height + 2))
    assert passes or f"negtraj show --recipe {recipe} --rejected" in said["remedy"]


def test_the_command_that_the_check_names_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert "tools_missing" in show(capsys, "--recipe", "tiny_nat", "--rejected")


# The key


def test_another_way_to_make_rows_makes_other_shards(root: Path) -> None:
    before = store().require("tiny_lax/tokenized_shards")
    path = root / "recipes" / "tiny_lax.toml"
    text = path.read_text()
    path.write_text(text.replace("[shards]", '[shards]\nreasoning = "per_turn_rows"'))
    try:
        build("tiny_lax")
        again = store().require("tiny_lax/tokenized_shards")
        assert (again.key != before.key, again.content["n_rows"] > before.content["n_rows"]) == (True, True)
    finally:
        path.write_text(text)
        build("tiny_lax")
