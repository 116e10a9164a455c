"""How a stage gets at conversations: by key, from segments of any age."""

import json

import polars as pl
import pytest

from negtraj_dagster.conversations import CONVERSATION_SCHEMA, read_conversations, read_index
from negtraj_dagster.rollouts import read
from negtraj_dagster.settings import Settings
from negtraj_dagster.store import Store


def land(settings: Settings, question_id: str, **more: object) -> None:
    path = settings.landing / "wordtraps" / "negtraj" / f"{question_id}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"question_id": question_id, "messages": [{"role": "assistant", "content": "a"}], **more}))


def conversations(store: Store, settings: Settings) -> dict[str, dict[str, object]]:
    raw = read.read_landed_files(store, settings)
    index = read_index(store, raw).select("base_key", "question_id")
    texts = read_conversations(store, raw, index["base_key"])
    assert texts.schema == CONVERSATION_SCHEMA
    return {row.pop("question_id"): row for row in index.join(texts, on="base_key").drop("base_key").to_dicts()}


PLAIN = {"conversation": '[{"content":"a","role":"assistant"}]', **dict.fromkeys(("tools", "tokenizer", "prompt", "extra"))}


def test_no_rollouts_are_an_empty_table_with_all_columns(store: Store, settings: Settings) -> None:
    assert conversations(store, settings) == {}


def test_segments_that_lack_tools_and_tokenizer_are_read_beside_newer_ones(
    store: Store, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    older = pl.Schema({name: CONVERSATION_SCHEMA[name] for name in ("base_key", "conversation")})
    land(settings, "old")
    with monkeypatch.context() as patch:
        patch.setattr(read, "CONVERSATION_SCHEMA", older)
        assert conversations(store, settings) == {"old": PLAIN}
    land(settings, "new", tools='[ {"name": "f"} ]', tokenizer="m")
    new = {**PLAIN, "tools": '[ {"name": "f"} ]', "tokenizer": "m"}
    assert conversations(store, settings) == {"old": PLAIN, "new": new}
