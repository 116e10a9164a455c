"""Under which tokenizer setting the paper's rows are those of the paper's own code, and that another file is warned of."""

import json
import logging
from pathlib import Path
from typing import Any, cast

import pytest
from tokenizers import Tokenizer

from negtraj_dagster.chat_templates import ChatTemplate
from negtraj_dagster.shards.tokenize import load_tokenizer, token_rule
from tests.reference.llama_tokenizer import LlamaTokenizer
from tests.support.nat_rollouts import compare, read_real_conversations, trajtok_encode
from tests.support.real_tokenizers import PACKAGES, real_tokenizer

MODEL = PACKAGES / "mistral_common/data/tokenizer.model.v1"
FILES = ("prepend", "first", "always")
DIFFERING = {
    ("prepend", True): (0, 0),
    ("prepend", False): (2333, 0),
    ("first", True): (2333, 2326),
    ("first", False): (2326, 2326),
    ("always", True): (2326, 2326),
    ("always", False): (2333, 2326),
}
"""Kind of tokenizer.json and LlamaTokenizer's `legacy` -> rollouts of 2,333 whose ids and whose labels differ."""


def tokenizer_json(kind: str, folder: Path) -> Path:
    """Llama 2's layout, or the same vocabulary with a Metaspace pre-tokenizer of this scheme."""
    path = folder / "tokenizer.json"
    content: dict[str, Any] = json.loads(real_tokenizer("mistral_v1").read_text("utf-8"))
    if kind != "prepend":
        metaspace = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": kind, "split": False}
        content |= {"normalizer": None, "pre_tokenizer": metaspace}
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def count_differing(kind: str, *, legacy: bool, nat_dir: Path, folder: Path, every: int) -> tuple[int, int]:
    encode = trajtok_encode(tokenizer_json(kind, folder), 4096)
    oracle = cast(Tokenizer, LlamaTokenizer(MODEL, legacy=legacy))
    result = compare(encode, read_real_conversations(nat_dir)[::every], oracle)
    return len(result.ids), len(result.labels)


def test_rows_are_the_papers_with_a_prepend_file_and_legacy_tokens(nat_dir: Path, tmp_path: Path) -> None:
    assert count_differing("prepend", legacy=True, nat_dir=nat_dir, folder=tmp_path, every=1) == (0, 0)


def test_without_legacy_tokens_the_labels_are_the_papers_alone(nat_dir: Path, tmp_path: Path) -> None:
    n_ids, n_labels = count_differing("prepend", legacy=False, nat_dir=nat_dir, folder=tmp_path, every=20)
    assert (n_ids, n_labels) == (117, 0)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "legacy"), DIFFERING)
def test_how_many_rows_differ_under_every_setting(kind: str, legacy: bool, nat_dir: Path, tmp_path: Path) -> None:
    assert count_differing(kind, legacy=legacy, nat_dir=nat_dir, folder=tmp_path, every=1) == DIFFERING[kind, legacy]


@pytest.mark.parametrize("kind", FILES)
def test_a_file_by_which_the_papers_rows_are_not_made_is_warned_of_by_name(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tokenizer_json(kind, tmp_path)
    with caplog.at_level(logging.WARNING):
        load_tokenizer(token_rule(tmp_path, ChatTemplate("nat_exact"), 4096, "drop"))
    warnings = [record.getMessage() for record in caplog.records if "nat_exact" in record.getMessage()]
    if kind == "prepend":
        assert warnings == []
    else:
        (warning,) = warnings
        assert str(path) in warning
        assert f"pre-tokenizer Metaspace, prepend_scheme '{kind}'" in warning
        assert "LlamaTokenizer(legacy=True)" in warning


def test_another_template_takes_such_a_file_without_a_word(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tokenizer_json("first", tmp_path)
    with caplog.at_level(logging.WARNING):
        load_tokenizer(token_rule(tmp_path, ChatTemplate("llama2"), 4096, "drop"))
    assert "nat_exact" not in caplog.text
