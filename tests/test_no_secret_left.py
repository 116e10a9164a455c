"""A whole run over rollouts full of secrets: the home, Dagster's, pages, logs, printed lines and token rows hold none."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import pytest
from tokenizers import Tokenizer

from negtraj_dagster.shards.reader import read_shards
from tests.support import deployment as dep
from tests.support.secrets import SECRETS, everything
from tests.test_recorded_prompts import RECIPE, SETTINGS, chat

ROOT = Path(__file__).resolve().parents[1]
SOURCE = """
[sources.chats]
task = "repairs"
format = "openai"
path = "{folder}/chats"
"""
COMMANDS = (
    ["run", "repairs"],
    ["check", "{folder}/chats/a.jsonl"],
    ["list", "--task", "repairs"],
    ["list", "--task", "repairs", "--label", "negative"],
    ["show", "--recipe", "repairs"],
    ["catalog"],
    ["plan", "repairs"],
    ["verify"],
)


def chats(texts: list[str]) -> list[dict[str, Any]]:
    """Each text in every place of a chat that a page, a log, a message or a token row may show."""
    rows = []
    for number, text in enumerate(texts):
        row = chat(number, 0, model=f"m {text}", session_id=f"s {text}", notes={text: [text]})
        system, user, answer = row["messages"]
        call = {"id": "c", "function": {"name": "run", "arguments": json.dumps({"command": text})}}
        row["messages"] = [
            {**system, "content": f"{system['content']} {text}"},
            {**user, "content": f"{user['content']} {text}"},
            {"role": "assistant", "content": f"Thought {number}: {text}", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c", "content": f"printed {text}"},
            {**answer, "content": f"{answer['content']} {text}"},
        ]
        rows += [row, {"messages": [{"role": text, "content": "x"}]}, {"messages": [{"role": "user", "content": text}]}]
    return rows


@pytest.mark.slow
def test_nothing_that_a_run_leaves_behind_holds_a_secret(base_model: Path, tmp_path: Path) -> None:
    made = {name: make() for name, make in SECRETS.items()}
    (tmp_path / "home").mkdir()
    (tmp_path / "recipes").mkdir()
    (tmp_path / "chats").mkdir()
    (tmp_path / "model").symlink_to(base_model)
    (tmp_path / "negtraj.toml").write_text((SETTINGS + SOURCE).format(folder=tmp_path))
    recipe = RECIPE.replace(
        "max_tokens = 2048", 'max_tokens = 4096\nchat_template = "qwen3"\nmissing_tools = "allow"\nreasoning = "per_turn_rows"'
    )
    (tmp_path / "recipes" / "repairs.toml").write_text(recipe)
    dep.write_lines(tmp_path / "chats" / "a.jsonl", chats([text for text, _ in made.values()] + ["nothing"] * 40))
    environment = {**os.environ, **dep.environment(tmp_path), "PYTHONPATH": str(ROOT), "HOME": os.environ["HOME"]}
    environment.pop("NEGTRAJ_NAT_DIR")
    printed = []
    for command in COMMANDS:
        words = [word.format(folder=tmp_path) for word in command]
        done = subprocess.run(
            [sys.executable, "-m", "negtraj_dagster.cli", *words], env=environment, capture_output=True, text=True
        )
        assert "Traceback" not in done.stderr, (command, done.stderr[-3000:])
        printed.append(done.stdout + done.stderr)
        assert done.returncode == 0 or command[0] == "check", (command, printed[-1][-3000:])
    rows = list(read_shards(tmp_path / "home", "repairs"))
    tokenizer = Tokenizer.from_file(str(tmp_path / "model" / "tokenizer.json"))
    decoded = [tokenizer.decode(list(row.input_ids), skip_special_tokens=False) for row in rows]
    assert sum("<secret:" in text for text in decoded) > len(rows) / 3
    with duckdb.connect(str(next((tmp_path / "home").rglob("catalog.duckdb"))), read_only=True) as catalog:
        tables = [str(catalog.sql(f'from "{name}"').fetchall()) for (name,) in catalog.sql("show tables").fetchall()]
    home = tmp_path / "home"
    assert (home / "dagster").is_dir()
    assert list(home.rglob("*.html"))
    places = {"the home and Dagster's": everything(home), "printed": "\n".join(printed), "token rows": "\n".join(decoded)}
    places["catalog"] = "\n".join(tables)
    print({name: f"{len(text):,} characters" for name, text in places.items()}, f"{len(rows)} token rows")
    leaked = [
        (place, name)
        for name, (_, secret) in made.items()
        for place, text in places.items()
        if len(secret) > 5 and (secret in text or json.dumps(secret)[1:-1] in text)
    ]
    assert leaked == []
