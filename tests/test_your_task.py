"""docs/your_task.md, command by command: a stranger's chats become a task, two checkpoints, their reports and a comparison."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
GUIDE = ROOT / "docs" / "your_task.md"
SHORTER = {
    "steps = 100": "steps = 4",
    'split = "test"': 'split = "test"\nmax_questions = 3\nmax_turns = 1\nmax_new_tokens_per_turn = 8',
}
"""The toy needs no hundred steps to be compared."""


def commands() -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line]


def test_the_guide_has_ten_commands_beside_the_export() -> None:
    assert len(commands()) == 11
    assert commands()[-1] == "negtraj ui"


def test_its_commands_lead_from_chats_to_a_comparison(tmp_path: Path) -> None:
    """All but the last one, which serves until it is stopped."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    environment = {**os.environ, "NEGTRAJ_HOME": str(tmp_path / "till"), "PYTHONPATH": str(ROOT)}
    environment = {name: value for name, value in environment.items() if name not in ("NEGTRAJ_NAT_DIR", "NEGTRAJ_RECIPES")}
    printed: dict[str, str] = {}
    for command in commands()[1:-1]:
        program, *arguments = command.split()
        module = ["-m", "negtraj_dagster.cli"] if program == "negtraj" else []
        if command == "negtraj run till":
            shorten(tmp_path / "till")
        line = [sys.executable, *module, *arguments]
        done = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, (command, done.stdout[-2000:], done.stderr[-2000:])
        printed[command] = done.stdout
    assert "900 rollouts are read as openai, 0 refused" in printed["negtraj check till_chats.jsonl"]
    task = (tmp_path / "till" / "tasks" / "till.toml").read_text()
    assert 'kind = "recorded"' in task
    assert 'score = "number"' in task
    assert "8 steps trained, 9 questions asked" in printed["negtraj run till"]
    assert "Solve the question" in printed["negtraj show --recipe till_nat"]
    known = re.search(r"Questions: ([\d,]+) of", printed["negtraj check till_more.jsonl --task till"])
    assert known is None  # these chats name no question: their prompts are the questions
    report = next((tmp_path / "till" / "objects" / "recipe_comparison" / "till").glob("*/comparison.json"))
    assert "till_nat" in report.read_text()


def shorten(home: Path) -> None:
    for recipe in (home / "recipes").glob("*.toml"):
        text = recipe.read_text()
        for present, other in SHORTER.items():
            assert present in text
            text = text.replace(present, other)
        recipe.write_text(text)
