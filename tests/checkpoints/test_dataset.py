"""Rows, the plan of steps, and their split over ranks."""

import importlib.util
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest

from negtraj_dagster.checkpoints.dataset import collate, load_rows, plan_steps, rank_share
from negtraj_dagster.errors import TrainingError

_spec = importlib.util.spec_from_file_location("trainer_material", Path(__file__).with_name("conftest.py"))
assert _spec
assert _spec.loader
_material = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_material)


def rows_of(material):
    return load_rows(material.folder / "index.parquet", [material.folder / "a.arrow", material.folder / "b.arrow"])


def test_missing_token_keys_are_named(material, tmp_path):
    with pytest.raises(TrainingError, match=r"11 of 21 token keys are in none of 1 segments: key-10, key-11"):
        load_rows(material.folder / "index.parquet", [material.folder / "a.arrow"])


def test_an_unreadable_segment_is_named(material, tmp_path):
    (tmp_path / "x.arrow").write_bytes(b"not arrow")
    with pytest.raises(TrainingError, match=r"x\.arrow: cannot be read"):
        load_rows(material.folder / "index.parquet", [tmp_path / "x.arrow"])


def test_a_row_comes_as_often_as_its_repeat_says(material):
    counts = Counter(row.token_key for row in rows_of(material))
    assert (counts["key-0"], counts["key-1"]) == (1, 2)


def test_the_index_weight_multiplies_the_spans(material):
    row = next(row for row in rows_of(material) if row.token_key == "key-1")  # weight 1.5, spans 1.0 and 0.5
    assert row.target_weights.tolist() == [1.5] * 4 + [0.75] * 3
    assert row.target_places.tolist() == [4, 5, 6, 7, 14, 15, 16]


def test_the_first_token_is_never_a_target(tmp_path):
    row = {**_material.segment_row(0), "span_start": [0, 8], "span_end": [2, 10]}
    _material.write_segment(tmp_path / "s.arrow", [row])
    _material.write_index(tmp_path / "i.parquet", [("key-0", 1.0, 1)])
    (loaded,) = load_rows(tmp_path / "i.parquet", [tmp_path / "s.arrow"])
    assert loaded.target_places.tolist() == [1, 8, 9]


def test_a_span_outside_its_row_is_refused(tmp_path):
    _material.write_segment(tmp_path / "s.arrow", [{**_material.segment_row(0), "span_end": [8, 13]}])
    _material.write_index(tmp_path / "i.parquet", [("key-0", 1.0, 1)])
    with pytest.raises(TrainingError, match=r"token key key-0: span \[9, 13\)"):
        load_rows(tmp_path / "i.parquet", [tmp_path / "s.arrow"])


def test_an_epoch_has_every_row_once_and_the_seed_decides_the_order(material):
    rows = rows_of(material)
    steps = list(islice(plan_steps(rows, batch_size=8, seed=1), 8))
    first_epoch = Counter(row.token_key for step in steps[:4] for row in step)
    assert first_epoch == Counter(row.token_key for row in rows)
    again = list(islice(plan_steps(rows, batch_size=8, seed=1), 8))
    other = list(islice(plan_steps(rows, batch_size=8, seed=2), 8))
    keys = [[[row.token_key for row in step] for step in plan] for plan in (steps, again, other)]
    assert keys[0] == keys[1] != keys[2]


@pytest.mark.parametrize("seed", range(8))
def test_the_longest_row_comes_first_and_nothing_is_left_out_for_it(material, seed):
    rows = rows_of(material)
    longest = max(len(row.input_ids) for row in rows)
    steps = list(islice(plan_steps(rows, batch_size=2, seed=seed), 2 * 16))
    assert max(len(row.input_ids) for row in steps[0]) == longest
    for epoch in (steps[:16], steps[16:]):
        assert sorted(row.token_key for step in epoch for row in step) == sorted(row.token_key for row in rows)


@pytest.mark.parametrize(("ranks", "micro_batch_size", "n_micro"), [(1, 8, 1), (1, 2, 4), (2, 4, 1), (4, 1, 2), (3, 3, 1)])
def test_any_split_trains_the_same_rows(material, ranks, micro_batch_size, n_micro):
    step_rows = rows_of(material)[:7]
    shares = [
        rank_share(step_rows, rank=rank, ranks=ranks, micro_batch_size=micro_batch_size, n_micro=n_micro)
        for rank in range(ranks)
    ]
    assert all(len(share) == n_micro for share in shares)
    got = Counter(row.token_key for share in shares for micro in share for row in micro)
    assert got == Counter(row.token_key for row in step_rows)


def test_targets_and_their_places_are_one_token_apart(material):
    rows = rows_of(material)[:3]
    batch = collate(rows)
    flat = batch.ids_BT.reshape(-1)
    assert flat[batch.places_N + 1].tolist() == batch.targets_N.tolist()
    wanted = [int(row.input_ids[place]) for row in rows for place in row.target_places]
    assert batch.targets_N.tolist() == wanted


def test_no_rows_make_a_batch_without_targets():
    batch = collate([])
    assert batch.ids_BT.shape == (1, 1)
    assert batch.targets_N.numel() == 0
