"""`negtraj init-task`: the settings and recipes that a file of rollouts needs."""

import argparse
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from negtraj_dagster.commands.arguments import add_mapping_arguments, mapping_of
from negtraj_dagster.errors import NegtrajError, SettingsError
from negtraj_dagster.exit_codes import SUCCESS
from negtraj_dagster.recipes import ShardsSettings, load_recipes
from negtraj_dagster.settings import Settings, load_settings, settings_file

if TYPE_CHECKING:
    from negtraj_dagster.views.check import CheckedFile, FormatReading

TOY = "bytes"
BYTES_A_TOKEN = {True: 1.0, False: 3.0}
"""Of the toy, and of tokenizers with a vocabulary of words: rather too few than too many."""
MARKUP = 1.15
"""What a template writes around the texts."""
MOST = 0.97
TOLERANT_SHARE = 0.9
"""Of rows a turn, too, of which long rollouts have many."""
LEAST_TOKENS = 512
NAME = re.compile(r"[a-z][a-z0-9_]*\Z")
STRATEGIES = {"vanilla": ("control", "successes only"), "nat": ("candidate", "successes and failures, told apart")}
RULES = (
    ("yes_no", re.compile(r"(?:yes|no|true|false)\Z", re.IGNORECASE)),
    ("number", re.compile(r"[-+$]?[\d,]+(?:\.\d+)?\Z")),
    ("choice", re.compile(r"\(?[A-Za-z]\)?\Z")),
)
"""Rules by what every right answer of the file looks like; other answers are compared letter by letter."""
RECIPE = """description = "{task}: {what}."
task = "{task}"
line = "{task}"
role = "{role}"
base_model = {base_model}

[strategy]
name = "{strategy}"

[selection]
profile = "strict"

[shards]
max_tokens = {max_tokens}{shards}

[training]
steps = 100
batch_size = 8

[evaluation]
split = "test"
"""


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Its arguments."""
    parser = commands.add_parser("init-task", help="write the task, the source and two recipes for a file of rollouts")
    parser.add_argument("name", metavar="NAME", help="what the task is to be called")
    parser.add_argument(
        "--from", dest="file", type=Path, required=True, metavar="FILE", help="rollouts, as `negtraj check` reads"
    )
    parser.add_argument("--base-model", default=TOY, metavar="M", help="of the recipes (default: bytes, a toy to try with)")
    add_mapping_arguments(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Write the files and say what comes next; nothing that is there is changed but negtraj.toml, at its end."""
    from negtraj_dagster.views.check import NO_OUTCOME, check_file

    settings = load_settings()
    checked = check_file(options.file, settings, mapping=mapping_of(options))
    files = dict(_files(options.name, options.base_model, checked, settings))
    own_file = settings_file(settings.home)
    source = _source(options.name, checked)
    if present := next((path for path in files if path.exists()), None):
        raise SettingsError(f"{present} is there already; choose another name, or remove it")
    if options.name in settings.sources or options.name in settings.tasks:
        raise SettingsError(f"[sources.{options.name}] or [tasks.{options.name}] is there already; choose another name")
    before = own_file.read_bytes() if own_file.is_file() else None
    try:
        for path, text in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        with own_file.open("a", encoding="utf-8") as file:
            file.write(source)
        load_recipes(load_settings())
    except NegtrajError:  # what does not load would stand in the way of every command
        for path in files:
            path.unlink(missing_ok=True)
        if before is None:
            own_file.unlink(missing_ok=True)
        else:
            own_file.write_bytes(before)
        raise
    best = checked.best
    print(f"{best.n_read:,} rollouts are read as {best.name}, {best.n_refused:,} refused. Written:")
    print("\n".join(f"  {path}" for path in (*files, own_file)))
    if not best.rewards[True] + best.rewards[False] + best.n_scored:
        print(f"\n{NO_OUTCOME}")
    print(f"\nLook at them, then:\n  negtraj plan --line {options.name}\n  negtraj run {options.name}")
    return SUCCESS


def _files(name: str, base_model: str, checked: "CheckedFile", settings: Settings) -> Iterator[tuple[Path, str]]:
    """Path and text of the task and of its recipes.

    Raises:
        SettingsError: the name is none, or no format reads the file.
    """
    best = checked.best
    if not NAME.match(name):
        raise SettingsError(f"{name!r}: a task's name has lower-case letters, digits and _ only, and begins with a letter")
    if not best.n_read:
        raise SettingsError(f"{checked.path}: no format reads it; `negtraj check {checked.path}` says why")
    yield settings.home / "tasks" / f"{name}.toml", _task(best)
    positions = _positions(base_model, settings)
    max_tokens, n_longer = _max_tokens(best.n_bytes, BYTES_A_TOKEN[base_model == TOY], positions)
    shards = "".join(f"\n{line}" for line in _shards(best, base_model, n_longer, positions))
    for strategy, (role, what) in STRATEGIES.items():
        recipe = RECIPE.format(
            task=name,
            what=what,
            role=role,
            base_model=_quoted(base_model),
            strategy=strategy,
            shards=shards,
            max_tokens=max_tokens,
        )
        yield settings.home / "recipes" / f"{name}_{strategy}.toml", recipe


def _positions(base_model: str, settings: Settings) -> int:
    """How many tokens a row of the base model has at most."""
    from negtraj_dagster.modeling import SCRATCH_MODELS

    toy = SCRATCH_MODELS[TOY].max_positions
    folder = settings.base_models[base_model].folder if base_model in settings.base_models else None
    try:
        config = {} if folder is None else json.loads((folder / "config.json").read_bytes())
        return int(config.get("max_position_embeddings", toy))
    except (OSError, ValueError, AttributeError):
        return toy  # what is wrong with the folder, reading it as a base model says


def _max_tokens(n_bytes: list[int], bytes_a_token: float, positions: int) -> tuple[int, int]:
    """A power of two that the rows of most rollouts fit in, and how many are longer than the model's positions."""
    estimates = sorted(int(size / bytes_a_token * MARKUP) for size in n_bytes)
    typical = estimates[min(int(len(estimates) * MOST), len(estimates) - 1)]
    n_longer = sum(estimate > positions for estimate in estimates)
    return min(max(LEAST_TOKENS, 1 << (typical - 1).bit_length()), positions), n_longer


def _shards(best: "FormatReading", base_model: str, n_longer: int, positions: int) -> Iterator[str]:
    if n_longer:
        yield (
            f'over_length = "cut_at_turn" # {n_longer:,} of {best.n_read:,} rollouts are longer than the {positions:,} '
            f"positions of the model"
        )
    if n_longer > best.n_read * ShardsSettings.model_fields["max_rejected_share"].default:
        yield f"max_rejected_share = {TOLERANT_SHARE} # where no first turn fits; a model with more positions keeps them"
    if best.n_with_calls > best.n_with_tools:
        yield 'missing_tools = "allow" # calls are recorded, the schemas of the tools are not'
    if (best.n_with_calls or best.n_with_reasoning) and base_model == TOY:  # which has no template of its own
        yield 'chat_template = "qwen3" # writes calls and reasoning; leave both lines out for a model with a template'
        yield 'reasoning = "per_turn_rows" # it writes an empty thought before the last answer alone'


def _task(best: "FormatReading") -> str:
    lines = []
    if best.n_with_prompt == best.n_read:
        lines.append('kind = "recorded" # every prompt of the rollouts is a question; held out are 5 % (gate) and 10 % (test)')
    else:
        lines += [
            "# The rollouts bring no prompts: name the files that hold the questions, by the ids that the rollouts name.",
            '# questions = {train = "train.jsonl", test = "test.jsonl"}',
        ]
    rule = _rule(best)
    lines.append(f'score = "{rule}" # {_reason(rule)}')
    if not best.rewards[True] + best.rewards[False] and best.n_scored:
        lines.append("min_score = 0.5 # from this recorded score on, a rollout is a success")
    lines.append(f'style = "{"react" if best.n_with_actions and not best.n_with_calls else "native"}"')
    for name, count in best.last_calls.most_common(1):
        if count > best.n_read / 2:
            lines.append(f"terminal_action = {_quoted(name)} # most rollouts end with a call of it")
    return "\n".join(lines) + "\n"


def _rule(best: "FormatReading") -> str:
    golds = [_plain(gold) for gold in best.golds]
    if not golds:
        return "recorded"
    return next((rule for rule, pattern in RULES if all(pattern.match(gold.strip()) for gold in golds)), "exact")


def _plain(gold: str) -> str:
    try:
        return str(json.loads(gold))
    except ValueError:
        return gold


def _reason(rule: str) -> str:
    if rule == "recorded":
        return "no record says what is right, so only its own outcome counts, and nothing is evaluated here"
    return "how an answer is compared with the right one; exact, yes_no, number, choice, f1 or recorded"


def _source(name: str, checked: "CheckedFile") -> str:
    from negtraj_dagster.views.check import source_lines

    return "\n" + "".join(f"{line}\n" for line in source_lines(name, name, checked))


def _quoted(text: str) -> str:
    """A text as TOML quotes it."""
    return json.dumps(text, ensure_ascii=False)
