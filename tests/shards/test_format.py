"""docs/shard_format.md holds for a real home: its manifests, what a plain reader gives and refuses, every name in it."""

import hashlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest

from negtraj_dagster import _trajtok, paths
from negtraj_dagster.checkpoints.dataset import load_rows
from negtraj_dagster.recipes import ShardsSettings
from negtraj_dagster.schema import canonical_json, digest_json
from negtraj_dagster.shards import reader
from negtraj_dagster.shards.reader import ShardFormatError, read_shards
from negtraj_dagster.shards.remedies import LEFT_OUT, REMEDIES
from negtraj_dagster.shards.rows import UNPROVED
from negtraj_dagster.store import STORE_VERSION
from tests.support import deployment as dep

ROOT = Path(__file__).resolve().parents[2]
DOC = (ROOT / "docs" / "shard_format.md").read_text(encoding="utf-8")
SCHEMA = json.loads((ROOT / "docs" / "schemas" / "manifest.schema.json").read_text(encoding="utf-8"))
FEW = "[selection]\nmax_positives = 40\nmax_negatives = 20\nrepeat_positives = 3\n"
"""Built before `tiny_nat`, whose rows then lie in two segments."""
SHORT = 419
"""Tokens; some rows have more, and are rejected."""

Json = dict[str, Any]


@pytest.fixture(scope="module")
def built(base_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with three recipes' shards."""
    folder = tmp_path_factory.mktemp("format")
    root = dep.make_deployment(folder / "d", base_model)
    recipe = dep.RECIPE.format(name="fewer rows", seed=0)
    (root / "recipes" / "tiny_few.toml").write_text(recipe.replace("[selection]\n", FEW))
    (root / "recipes" / "tiny_short.toml").write_text(recipe.replace("max_tokens = 2048", f"max_tokens = {SHORT}"))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in dep.environment(root).items():
            patch.setenv(name, value)
        dep.run(root, dep.counting_child)
    return root / "home"


@pytest.fixture
def home(built: Path, tmp_path: Path) -> Path:
    """What a reader needs of it, to be changed."""
    for name in ("current", "segments/tokens"):
        shutil.copytree(built / name, tmp_path / "copy" / name)
    for folder in (built / "objects").glob("tiny_*/tokenized_shards"):
        shutil.copytree(folder, tmp_path / "copy" / folder.relative_to(built))
    return tmp_path / "copy"


def read_json(path: Path) -> Json:
    return dict(json.loads(path.read_text(encoding="utf-8")))


def manifests(home: Path) -> list[Path]:
    found = sorted(path for name in ("objects", "segments") for path in (home / name).rglob("MANIFEST.json"))
    assert len(found) > 20
    return found


# What is written


def test_every_manifest_is_as_the_schema_says(built: Path) -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    validator = jsonschema.Draft202012Validator(SCHEMA)
    for path in manifests(built):
        assert [error.message for error in validator.iter_errors(read_json(path))] == [], path


def test_the_schema_refuses_what_the_text_refuses(built: Path) -> None:
    validator = jsonschema.Draft202012Validator(SCHEMA)
    manifest = read_json(manifests(built)[0])
    for name in SCHEMA["required"]:
        assert not validator.is_valid({key: value for key, value in manifest.items() if key != name}), name
    entry = {"size_bytes": 1, "sha256": "0" * 64}
    wrong: list[Json] = [
        {"store_version": STORE_VERSION + 1},
        {"seal": "0" * 63},
        {"asset": "../elsewhere"},
        {"files": {"../escape": entry}},
        {"files": {"MANIFEST.json": entry}},
        {"files": {"a": entry | {"volatile": False}}},
        {"refers": {"elsewhere": "0" * 64}},
        {"content": {"status": "no_data"}},
    ]
    for change in wrong:
        assert not validator.is_valid(manifest | change), change
    assert validator.is_valid(manifest | {"later": 1, "files": {"a/b": entry | {"volatile": True}}})


def test_digests_are_computed_as_the_text_says(built: Path) -> None:
    """Over the file's bytes alone, as a program without a canonical encoder would."""
    for path in manifests(built):
        text = path.read_text(encoding="utf-8")
        manifest = json.loads(text)
        assert text == canonical_json(manifest)
        body, n_cut = re.subn(r'"seal":"[0-9a-f]{64}",', "", text)
        assert (n_cut, hashlib.sha256(body.encode()).hexdigest()) == (1, manifest["seal"])
        start = text.index('"content":') + len('"content":')
        end = json.JSONDecoder().raw_decode(text, start)[1]
        assert hashlib.sha256(text[start:end].encode()).hexdigest() == manifest["version"]
        assert path.parent.name == manifest["key"]
        if "segments" not in path.relative_to(built).parts:
            parts = (b"object", canonical_json(manifest["made_of"]).encode())
            prefixed = b"".join(len(part).to_bytes(8, "little") + part for part in parts)
            assert hashlib.sha256(prefixed).hexdigest() == manifest["key"]


# What is read

READ = """
import importlib.abc, json, sys
from pathlib import Path

class Forbid(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        top = name.split(".")[0]
        if top not in sys.stdlib_module_names | {"numpy", "pyarrow", "reader"} and not top.startswith("_sysconfigdata"):
            raise ModuleNotFoundError(f"{name} is forbidden here", name=name)

sys.meta_path.insert(0, Forbid())
import reader
for row in reader.read_shards(Path(sys.argv[1]), sys.argv[2]):
    print(json.dumps([row.token_key, row.repeat, row.input_ids.tolist(), row.loss_weights.tolist()]))
assert not {"negtraj_dagster", "torch", "polars"} & sys.modules.keys()
"""


def read_elsewhere(home: Path, recipe: str, folder: Path) -> list[list[Any]]:
    """What a copy of the reader gives in a process that can import numpy and pyarrow alone."""
    shutil.copy(str(reader.__file__), folder / "reader.py")
    (folder / "read.py").write_text(READ)
    return lines_of([sys.executable, "-P", "read.py", str(home), recipe], folder)


def lines_of(command: list[str], folder: Path) -> list[list[Any]]:
    environ = {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def trained(home: Path, recipe: str) -> Iterator[list[Any]]:
    """The rows that the trainer's data set reads, each as often as it is trained in an epoch."""
    folder = shards_of(home, recipe)
    segments = [home / name / "rows.arrow" for name in read_json(folder / "MANIFEST.json")["details"]["segments"]]
    for row in load_rows(folder / "index.parquet", segments):
        targets = list(zip(row.target_places.tolist(), row.target_weights.tolist(), strict=True))
        yield [row.token_key, row.input_ids.tolist(), targets]


def repeated(rows: list[list[Any]]) -> Iterator[list[Any]]:
    for token_key, repeat, input_ids, weights in rows:
        targets = [(place, weight) for place, weight in enumerate(weights) if weight]
        yield from [[token_key, input_ids, targets]] * repeat


@pytest.mark.parametrize("recipe", ["tiny_nat", "tiny_few", "tiny_short"])
def test_a_copy_of_the_reader_gives_what_the_trainer_reads(built: Path, recipe: str, tmp_path: Path) -> None:
    rows = read_elsewhere(built, recipe, tmp_path)
    assert len(rows) == read_json(shards_of(built, recipe) / "MANIFEST.json")["content"]["n_rows"]
    assert list(repeated(rows)) == list(trained(built, recipe))


def test_the_fixture_has_repeats_two_segments_and_rejected_rows(built: Path) -> None:
    assert {row.repeat for row in read_shards(built, "tiny_few")} == {1, 3}
    assert len(read_json(shards_of(built, "tiny_nat") / "MANIFEST.json")["refers"]) == 2
    (segment,) = segments_of(built, "tiny_short")
    keys = pq.read_table(segment / "keys.parquet").to_pylist()
    written = {row["token_key"] for row in keys if not row["reason"]}
    assert {row["reason"] for row in keys} == {"", "over_length"}
    assert {row.token_key for row in read_shards(built, "tiny_short")} == written


def test_weights_of_rows_and_spans_multiply_as_in_the_trainer(home: Path, tmp_path: Path) -> None:
    first, second = segments_of(home, "tiny_nat")
    again = pa.ipc.open_file(first / "rows.arrow").read_all().to_pylist()  # the first segment by name counts
    weigh = lambda row, n: row | {"span_weight": [0.1 * (n % 5 + k) for k in range(len(row["span_start"]))]}  # noqa: E731
    change_rows(home, first, lambda rows: [weigh(row, n) for n, row in enumerate(rows)])
    change_rows(home, second, lambda rows: [*(weigh(row, n + 1) for n, row in enumerate(rows)), *again])
    change_index(home, lambda rows: [row | {"weight": 0.3 + n / 7, "repeat": n % 3} for n, row in enumerate(rows)])
    rows = read_elsewhere(home, "tiny_nat", tmp_path)
    assert list(repeated(rows)) == list(trained(home, "tiny_nat"))
    assert {repeat for _, repeat, _, _ in rows} == {0, 1, 2}


def test_the_first_token_is_never_a_target(home: Path) -> None:
    for segment in segments_of(home, "tiny_nat"):
        change_rows(home, segment, lambda rows: [whole_row_trained(row) for row in rows])
    change_index(home, lambda rows: [row | {"n_trained": row["n_tokens"]} for row in rows])
    assert {tuple(row.loss_weights[:2].tolist()) for row in read_shards(home, "tiny_nat")} == {(0.0, 1.0)}


def whole_row_trained(row: Json) -> Json:
    return row | {"span_start": [0], "span_end": [len(row["input_ids"])], "span_weight": [1.0]}


def test_fields_and_columns_that_are_not_known_are_passed_over(home: Path) -> None:
    before = [row.token_key for row in read_shards(home, "tiny_nat")]
    change_manifest(shards_of(home, "tiny_nat"), lambda manifest: manifest.update(later={"a": 1}))
    change_index(home, lambda rows: [{"later": 1, **row} for row in rows])
    assert [row.token_key for row in read_shards(home, "tiny_nat")] == before


def test_shards_without_data_have_no_rows(home: Path) -> None:
    for path in shards_of(home).iterdir():
        if path.name != "MANIFEST.json":
            path.unlink()
    empty = {"content": {"status": "no_data", "reason": "nothing landed"}, "files": {}, "refers": {}}
    change_manifest(shards_of(home, "tiny_nat"), lambda manifest: manifest.update(empty))
    change_pointer(home, version=digest_json(empty["content"]))
    assert list(read_shards(home, "tiny_nat")) == []


def test_the_example_without_a_reader_gives_the_same_rows(built: Path, tmp_path: Path) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", DOC, flags=re.DOTALL)
    assert "wordtraps_nat" in example
    printed = example.replace("wordtraps_nat", "tiny_nat").replace("print(", "print(json.dumps([").replace("())\n", "()]))\n")
    script = f"import pathlib, sys\nhome = pathlib.Path(sys.argv[1])\n{printed}"
    assert lines_of([sys.executable, "-c", script, str(built)], tmp_path) == read_elsewhere(built, "tiny_nat", tmp_path)


# What is refused: a case changes a home, seals it again where another check would fire first, and gives the file to be named


def pointer_of(home: Path, recipe: str = "tiny_nat") -> Path:
    return home / "current" / recipe / "tokenized_shards.json"


def shards_of(home: Path, recipe: str = "tiny_nat") -> Path:
    return home / "objects" / recipe / "tokenized_shards" / str(read_json(pointer_of(home, recipe))["key"])


def segments_of(home: Path, recipe: str = "tiny_nat") -> list[Path]:
    return [home / name for name in sorted(read_json(shards_of(home, recipe) / "MANIFEST.json")["refers"])]


def change_pointer(home: Path, **fields: object) -> Path:
    path = pointer_of(home)
    path.write_text(canonical_json(read_json(path) | fields))
    return path


def change_manifest(folder: Path, change: Callable[[Json], object]) -> Path:
    """Changed and sealed again; the version follows the content."""
    path = folder / "MANIFEST.json"
    body = read_json(path)
    before = canonical_json(body["content"])
    del body["seal"]
    change(body)
    if canonical_json(body["content"]) != before:
        body["version"] = digest_json(body["content"])
    path.write_text(canonical_json(body | {"seal": digest_json(body)}), encoding="utf-8")
    return path


def describe(folder: Path, name: str) -> None:
    """The manifest follows a file's bytes."""
    entry = {"size_bytes": (folder / name).stat().st_size, "sha256": sha256(folder / name)}
    change_manifest(folder, lambda manifest: manifest["files"].update({name: entry}))


def refer(home: Path, segment: Path) -> None:
    """The shards follow a segment's manifest."""
    entry = {segment.relative_to(home).as_posix(): sha256(segment / "MANIFEST.json")}
    change_manifest(shards_of(home), lambda manifest: manifest["refers"].update(entry))


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write_index(home: Path, table: pa.Table) -> Path:
    path = shards_of(home) / "index.parquet"
    pq.write_table(table, path)
    describe(path.parent, path.name)
    return path


def change_index(home: Path, change: Callable[[list[Json]], list[Json]]) -> Path:
    table = pq.read_table(shards_of(home) / "index.parquet")
    rows = change(table.to_pylist())
    new = [pa.field(name, pa.int32()) for name in rows[0] if name not in table.column_names]
    return write_index(home, pa.Table.from_pylist(rows, schema=pa.schema([*new, *table.schema])))


def write_rows(home: Path, segment: Path, table: pa.Table) -> Path:
    path = segment / "rows.arrow"
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    describe(segment, path.name)
    refer(home, segment)
    return path


def change_rows(home: Path, segment: Path, change: Callable[[list[Json]], list[Json]]) -> Path:
    table = pa.ipc.open_file(segment / "rows.arrow").read_all()
    return write_rows(home, segment, pa.Table.from_pylist(change(table.to_pylist()), schema=table.schema))


def last_entry(home: Path, **fields: object) -> Path:
    """The index's last row changed: it is to be found before the first row is given."""
    return change_index(home, lambda rows: [*rows[:-1], rows[-1] | fields])


def last_token_row(home: Path, **fields: object) -> Path:
    key = pq.read_table(shards_of(home) / "index.parquet")["token_key"].to_pylist()[-1]
    for segment in segments_of(home):
        rows = pa.ipc.open_file(segment / "rows.arrow").read_all().to_pylist()
        if key in [row["token_key"] for row in rows]:
            return change_rows(home, segment, lambda rows: [row | fields if row["token_key"] == key else row for row in rows])
    raise AssertionError(key)


def overwrite(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def remove(path: Path) -> Path:
    path.unlink()
    return path


def flip_last_byte(path: Path) -> Path:
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(bytes(raw))
    return path


def cut(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[:-1])
    return path


def gone(home: Path, folder: Path) -> Path:
    shutil.rmtree(folder)
    return folder / "MANIFEST.json"


def unsealed(home: Path) -> Path:
    path = shards_of(home) / "MANIFEST.json"
    return overwrite(path, path.read_text().replace('"n_rejected":0', '"n_rejected":1'))


def with_nan(home: Path) -> Path:
    path = shards_of(home) / "MANIFEST.json"
    return overwrite(path, path.read_text().replace('"n_rejected":0', '"n_rejected":NaN'))


def not_parquet(home: Path) -> Path:
    path = overwrite(shards_of(home) / "index.parquet", "not Parquet")
    describe(path.parent, path.name)
    return path


def not_arrow(home: Path) -> Path:
    path = overwrite(segments_of(home)[1] / "rows.arrow", "not Arrow")
    describe(path.parent, path.name)
    refer(home, path.parent)
    return path


def refers_elsewhere(home: Path) -> Path:
    segment = segments_of(home)[0]
    other = home / "segments" / "other" / segment.name
    shutil.copytree(segment, other)
    refer(home, other)
    return other / "MANIFEST.json"


def rows_lost(home: Path) -> Path:
    change_rows(home, segments_of(home)[1], lambda rows: rows[1:])
    return shards_of(home) / "index.parquet"


def without_column(home: Path) -> Path:
    return write_index(home, pq.read_table(shards_of(home) / "index.parquet").drop_columns(["weight"]))


def another_type(home: Path) -> Path:
    table = pq.read_table(shards_of(home) / "index.parquet")
    place = table.column_names.index("repeat")
    return write_index(home, table.set_column(place, "repeat", table["repeat"].cast(pa.float64())))


def own(change: Callable[[Json], object]) -> Callable[[Path], Path]:
    return lambda home: change_manifest(shards_of(home), change)


CASES: dict[str, tuple[Callable[[Path], Path], str]] = {
    "no_pointer": (lambda home: remove(pointer_of(home)), "cannot be read"),
    "pointer_not_json": (lambda home: overwrite(pointer_of(home), "[1]"), "cannot be read"),
    "pointer_of_another_asset": (lambda home: change_pointer(home, asset="tiny_few/tokenized_shards"), "points to tiny_few"),
    "pointer_without_a_key": (lambda home: change_pointer(home, key="../elsewhere"), "a key of 64 hex digits"),
    "object_gone": (lambda home: gone(home, shards_of(home)), "cannot be read"),
    "pointer_of_another_version": (lambda home: change_pointer(home, version="0" * 64), "says version 0"),
    "manifest_missing": (lambda home: remove(shards_of(home) / "MANIFEST.json"), "cannot be read"),
    "manifest_not_json": (lambda home: cut(shards_of(home) / "MANIFEST.json"), "cannot be read as a JSON object"),
    "manifest_with_nan": (with_nan, "cannot be read as a JSON object"),
    "unknown_store_version": (own(lambda manifest: manifest.update(store_version=STORE_VERSION + 1)), "store version 3"),
    "wrong_seal": (unsealed, "its seal does not fit"),
    "field_missing": (own(lambda manifest: manifest.pop("refers")), "refers missing"),
    "file_entry_incomplete": (
        own(lambda manifest: manifest["files"]["previews.json"].pop("size_bytes")),
        "expected size_bytes",
    ),
    "wrong_asset": (own(lambda manifest: manifest.update(asset="tiny_few/tokenized_shards")), "expected tiny_nat"),
    "wrong_key": (own(lambda manifest: manifest.update(key="0" * 64)), f"of tiny_nat/tokenized_shards {'0' * 64}, expected"),
    "wrong_version": (own(lambda manifest: manifest.update(version="0" * 64)), "is not the digest of its content"),
    "file_missing": (lambda home: remove(shards_of(home) / "previews.json"), "missing"),
    "file_extra": (lambda home: overwrite(shards_of(home) / "extra.txt", ""), "not in the manifest"),
    "file_truncated": (lambda home: cut(shards_of(home) / "index.parquet"), "bytes, the manifest says"),
    "file_altered": (lambda home: flip_last_byte(shards_of(home) / "index.parquet"), "sha256"),
    "segment_file_missing": (lambda home: remove(segments_of(home)[1] / "rows.arrow"), "missing"),
    "segment_file_extra": (lambda home: overwrite(segments_of(home)[1] / ".hidden", ""), "not in the manifest"),
    "segment_file_altered": (lambda home: flip_last_byte(segments_of(home)[1] / "rows.arrow"), "sha256"),
    "segment_gone": (lambda home: gone(home, segments_of(home)[1]), "missing, or not the manifest"),
    "refers_another_manifest": (
        lambda home: change_manifest(segments_of(home)[1], lambda manifest: manifest["details"].update(later=1)),
        "missing, or not the manifest",
    ),
    "refers_elsewhere": (refers_elsewhere, "expected segments/tokens/"),
    "index_not_parquet": (not_parquet, "cannot be read as columns"),
    "rows_not_arrow": (not_arrow, "cannot be read as columns"),
    "column_missing": (without_column, "cannot be read as columns"),
    "column_of_another_type": (another_type, "found .*repeat double"),
    "nulls": (lambda home: last_entry(home, weight=None), "nulls in column weight"),
    "token_key_in_no_segment": (rows_lost, "1 token keys are in no segment"),
    "span_out_of_bounds": (lambda home: last_token_row(home, span_start=[0, 9], span_end=[5, 9999]), r"span \[9, 9999\)"),
    "span_reversed": (lambda home: last_token_row(home, span_start=[0, 9], span_end=[5, 8]), r"span \[9, 8\)"),
    "span_lists_differ": (lambda home: last_token_row(home, span_weight=[1.0]), "differ in length"),
    "span_weight_negative": (lambda home: last_token_row(home, span_weight=[1.0, -0.5]), r"of weight -0\.5"),
    "span_weight_nan": (lambda home: last_token_row(home, span_weight=[1.0, float("nan")]), "of weight nan"),
    "row_weight_negative": (lambda home: last_entry(home, weight=-1.0), r"weight -1\.0"),
    "row_weight_nan": (lambda home: last_entry(home, weight=float("nan")), "weight nan"),
    "repeat_negative": (lambda home: last_entry(home, repeat=-1), "repeat -1"),
    "n_tokens_differ": (lambda home: last_entry(home, n_tokens=1), "1 tokens"),
    "n_trained_differ": (lambda home: last_entry(home, n_trained=1), "1 of them trained"),
}


@pytest.mark.parametrize("name", CASES)
def test_what_a_reader_must_refuse_is_refused_by_file_before_the_first_row(home: Path, name: str) -> None:
    change, message = CASES[name]
    path = change(home)
    with pytest.raises(ShardFormatError, match=message) as refused:
        next(read_shards(home, "tiny_nat"))
    assert str(path) in str(refused.value)


def test_the_text_lists_every_case() -> None:
    cases = " ".join(row[-1] for row in tables("## What a reader MUST refuse"))
    assert sorted(re.findall(r"`(\w+)`", cases)) == sorted(CASES)


def test_an_untouched_copy_is_read(home: Path, built: Path) -> None:
    keys = [row.token_key for row in read_shards(home, "tiny_nat")]
    assert keys == [row.token_key for row in read_shards(built, "tiny_nat")]


# What the text names


def tables(heading: str) -> list[list[str]]:
    """Cells of the tables under a heading, the heads left out."""
    assert DOC.count(f"\n{heading}\n") == 1, heading
    section = re.split(r"\n##+ ", DOC.split(f"\n{heading}\n")[1])[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.split("\n") if line.startswith("|")]
    rules = [n for n, row in enumerate(rows) if set(row[0]) == {"-"}]
    return [row for n, row in enumerate(rows) if n not in rules and n + 1 not in rules]


def named(heading: str) -> list[tuple[str, str]]:
    """First and second cell of the rows whose first cell is a name."""
    return [(row[0].strip("`"), row[1]) for row in tables(heading)]


def type_name(kind: pa.DataType) -> str:
    if pa.types.is_list(kind):
        return f"list of {type_name(kind.value_type)}"
    return {"large_string": "string", "float": "float32"}.get(str(kind), str(kind))


def stated(schema: pa.Schema) -> list[tuple[str, str]]:
    return [(field.name, type_name(field.type)) for field in schema]


def test_the_text_states_every_column_with_its_type(built: Path) -> None:
    for recipe in ("tiny_nat", "tiny_few", "tiny_short"):
        for name in ("index.parquet", "rejected.parquet"):
            assert named(f"### {name}") == stated(pq.read_schema(shards_of(built, recipe) / name))
        for segment in segments_of(built, recipe):
            rows = pa.ipc.open_file(segment / "rows.arrow")
            assert (named("### rows.arrow"), rows.num_record_batches) == (stated(rows.schema), 1)
            keys = [row for row in named("### keys.parquet") if row[1] in {"string", "int32"}]
            assert keys == stated(pq.read_schema(segment / "keys.parquet"))


def test_the_text_states_every_reason_of_a_rejected_row() -> None:
    source = (paths.PACKAGE_ROOT / "rust" / "trajtok" / "src" / "error.rs").read_text(encoding="utf-8")
    reasons = re.findall(r'Self::\w+ => "(\w+)",', source)
    assert len(reasons) >= 5
    found = [name for name, kind in named("### keys.parquet") if kind not in {"string", "int32"}]
    assert found == [
        *reasons,
        "engines_differ",
        "joined_across_turn",
        "blank_turn",
        "reasoning_left",
        "tools_missing",
        "ids_differ",
        "other_tokenizer",
        "weights_differ",
    ]


def test_every_reason_of_a_rejected_row_has_a_remedy() -> None:
    stated_reasons = [name for name, kind in named("### keys.parquet") if kind not in {"string", "int32"}]
    assert sorted(REMEDIES) == sorted(stated_reasons)
    named_settings = set(re.findall(r"shards\.(\w+)", f"{REMEDIES} {LEFT_OUT}"))
    assert named_settings <= set(ShardsSettings.model_fields)


def test_the_text_states_which_reasons_are_failed_proofs() -> None:
    (sentence,) = re.findall(r"\n((?:`\w+`,?\s(?:and\s)?)+)are failed proofs:", DOC)
    assert sorted(re.findall(r"`(\w+)`", sentence)) == sorted(UNPROVED)


def test_rejected_rows_are_in_the_order_of_arrival_with_the_reasons_of_their_segment(built: Path) -> None:
    rejected = pq.read_table(shards_of(built, "tiny_short") / "rejected.parquet").to_pylist()
    (segment,) = segments_of(built, "tiny_short")
    keys = {row["token_key"]: (row["reason"], row["detail"]) for row in pq.read_table(segment / "keys.parquet").to_pylist()}
    assert len(rejected) == read_json(shards_of(built, "tiny_short") / "MANIFEST.json")["details"]["n_rejected"] > 0
    assert all((row["reason"], row["detail"]) == keys[row["token_key"]] for row in rejected)


def test_the_text_states_every_field_of_a_manifest_with_its_type(built: Path) -> None:
    fields = named("## MANIFEST.json")
    kinds = {"integer": int, "string": str, "object": dict, "array of strings": list}
    for path in manifests(built):
        manifest = read_json(path)
        assert {name: kinds[kind] for name, kind in fields} == {name: type(value) for name, value in manifest.items()}
        assert all(f"`{name}`" in DOC for entry in manifest["files"].values() for name in entry)
    assert {name for name, _ in fields} == set(SCHEMA["properties"]) == set(SCHEMA["required"])


def test_the_text_states_what_a_pointer_and_the_shards_hold(built: Path) -> None:
    pointer, manifest = read_json(pointer_of(built)), read_json(shards_of(built) / "MANIFEST.json")
    previews = json.loads((shards_of(built) / "previews.json").read_text(encoding="utf-8"))
    names = {*pointer, *manifest["content"], *manifest["files"], *previews[0], *previews[0]["stretches"][0]}
    assert [name for name in sorted(names) if f"`{name}`" not in DOC and f"### {name}" not in DOC] == []


def test_the_text_states_everything_a_home_holds(built: Path) -> None:
    entries = re.findall(r"`([^`]+)`", " ".join(row[0] for row in tables("## Layout")))
    found = {f"{path.name}/" if path.is_dir() else path.name for path in built.iterdir()}
    assert found - set(entries) == set()
    assert {"pins/", "damaged/", "tombstones.jsonl", "negtraj.toml", "dagster/"} <= set(entries)


def test_the_text_states_the_present_versions() -> None:
    assert named("## Versions") == [
        ("STORE_VERSION", str(STORE_VERSION)),
        ("TOKEN_FORMAT_VERSION", str(_trajtok.TOKEN_FORMAT_VERSION)),
    ]
    assert SCHEMA["properties"]["store_version"]["const"] == reader.STORE_VERSION == STORE_VERSION
