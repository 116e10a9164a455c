"""Hands a checkpoint out: a folder that anyone can serve, with the very prompt it has to be asked with, and where it came from.

`model/` and, of LoRA, `adapter/`; `README.md`, a model card; `lineage.json`. Before the folder gets its name a process of its
own runs the model on token rows of its shards, holds it to its adapter, and asks its chat template for the prompt.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from negtraj_dagster.chat_templates import ChatTemplate
from negtraj_dagster.checkpoints.build import check_unchanged, model_folder, present_checkpoint
from negtraj_dagster.errors import SettingsError, StoreError
from negtraj_dagster.launch import RunChild
from negtraj_dagster.recipes import Recipe, ServerSettings
from negtraj_dagster.schema import Turn, conditioned_json
from negtraj_dagster.settings import did_you_mean
from negtraj_dagster.store import Published, Store, file_sha256
from negtraj_dagster.strategies.base import conditioned

COMPARER = "negtraj_dagster.checkpoints.compare_export"
VERSION_CHARS = 12
"""Of a checkpoint's version, in the name that a server has it by."""
QUESTION = "{question}"
"""What stands in a card's prompt where the question goes."""


@dataclass(frozen=True)
class Named:
    """A checkpoint that a line or a recipe names now; the recipe is as it was when the checkpoint was trained."""

    recipe: Recipe
    checkpoint: Published
    report: Published | None


def find_named(store: Store, recipes: Mapping[str, Recipe], name: str) -> Named:
    """A line's champion, or a recipe's present checkpoint.

    Raises:
        SettingsError: neither a line nor a recipe has the name.
        StoreError: there is no checkpoint yet, or it is gone.
    """
    lines = {recipe.line for recipe in recipes.values()}
    if name not in recipes and name not in lines:
        raise SettingsError(f"no line or recipe {name!r}{did_you_mean(name, [*lines, *recipes])}")
    alias = f"{name}/checkpoint" if name in recipes else f"champion/{name}"
    checkpoint = present_checkpoint(store, alias)
    if checkpoint is None:
        absence = "no checkpoint was trained" if name in recipes else "no champion was named"
        raise StoreError(f"{name}: {absence} yet; `negtraj run {name}` does")
    recipe_name = checkpoint.asset.removesuffix("/checkpoint")
    if recipe_name not in recipes:
        raise StoreError(f"{name}: recipe {recipe_name}, which made it, is gone; put its file back")
    report = store.current(f"{recipe_name}/evaluation_report")
    if report is not None and (report.is_empty or report.content["checkpoint"] != checkpoint.version):
        report = None
    recipe = recipes[recipe_name]
    if trained := checkpoint.details.get("recipe"):
        recipe = Recipe.model_validate(trained)
    return Named(recipe, checkpoint, report)


def deliver(store: Store, named: Named, folder: Path, run_child: RunChild) -> dict[str, Any]:
    """Write the folder; what the comparison found.

    Args:
        store: where the checkpoint lies.
        named: what is handed out.
        folder: absent or empty.
        run_child: starts the comparison.

    Raises:
        SettingsError: there is something in the folder, or it cannot be made.
        StoreError: an object that the checkpoint was made of is damaged or gone.
        ChildRunError: what was written is not what was trained.
    """
    folder = folder.resolve()
    is_there = folder.exists()
    if is_there and (not folder.is_dir() or any(folder.iterdir())):
        raise SettingsError(f"{folder}: is there already; name a folder that is absent or empty")
    checkpoint = named.checkpoint
    store.verify(checkpoint.folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        # inside of a folder that is there: it may be a mount point, which no rename replaces
        unfinished = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder if is_there else folder.parent))
    except OSError as error:
        raise SettingsError(f"{folder} cannot be written ({error.strerror}); name another folder") from error
    try:
        for part in ("model", "adapter"):
            if (checkpoint.folder / part).is_dir():
                shutil.copytree(checkpoint.folder / part, unfinished / part, copy_function=shutil.copyfile)
        _name_base_model(unfinished / "adapter", base_name(named))
        comparison = _compare(store, named, unfinished, run_child)
        lineage = lineage_of(named, comparison, unfinished)
        (unfinished / "lineage.json").write_text(json.dumps(lineage, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        (unfinished / "README.md").write_text(model_card(named, comparison, unfinished), encoding="utf-8")
        unfinished.chmod(0o755)
        if is_there:
            for path in sorted(unfinished.iterdir(), key=lambda path: path.name == "README.md"):  # last
                os.replace(path, folder / path.name)
        else:
            os.replace(unfinished, folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return comparison


def _name_base_model(adapter: Path, name: str) -> None:
    """Of the adapter, by its name: a path of this machine would be none of another's."""
    path = adapter / "adapter_config.json"
    if path.is_file():
        config = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps({**config, "base_model_name_or_path": name}, indent=2, sort_keys=True), encoding="utf-8")


def _compare(store: Store, named: Named, unfinished: Path, run_child: RunChild) -> dict[str, Any]:
    made_from = named.checkpoint.details["card"]["lineage"]
    shards = _made_from(store, f"{named.recipe.name}/tokenized_shards", made_from["shards"])
    base = _made_from(store, f"base_model/{named.recipe.base_model}", made_from["base_model"])
    check_unchanged(base)
    model_dir = model_folder(base)
    if "warm_start" in made_from:
        model_dir = _parent_folder(store, made_from["warm_start"])
    segments = [store.folder(name) / "rows.arrow" for name in shards.details["segments"]]
    for segment in segments:
        store.verify(segment.parent)
    card = named.checkpoint.details["card"]
    with store.scratch() as scratch:
        config = {
            "prompt": [{"role": turn["role"], "content": turn["content"]} for turn in card["prompt"]],
            "prompt_text": prompt_text(card, unfinished / "model" / "tokenizer.json"),
            "folder": str(unfinished),
            "base_model_dir": str(model_dir),
            "index_path": str(store.file(shards.folder, "index.parquet")),
            "segment_paths": [str(segment) for segment in segments],
            "threads": named.recipe.training.threads,
            "out_dir": str(scratch),
        }
        (scratch / "compare.json").write_text(json.dumps(config))
        run_child(COMPARER, scratch / "compare.json", 1, named.recipe.training.threads)
        comparison: dict[str, Any] = json.loads((scratch / "result.json").read_text(encoding="utf-8"))
    return comparison


def _made_from(store: Store, asset: str, version: str) -> Published:
    published = store.find(asset, version)
    if published is None:
        raise StoreError(f"{asset} of version {version[:12]}, which the checkpoint was made from, is gone from {store.home}")
    return published


def _parent_folder(store: Store, version: str) -> Path:
    for asset in store.assets():
        if asset.endswith("/checkpoint") and (parent := store.find(asset, version)) is not None:
            return parent.folder / "model"
    raise StoreError(f"the checkpoint of version {version[:12]} that this one started from is gone from {store.home}")


def lineage_of(named: Named, comparison: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """What the folder was made of: settings, versions, sums of the training, and each file's sha256."""
    checkpoint, card = named.checkpoint, named.checkpoint.details["card"]
    recipe = named.recipe.model_dump(mode="json")
    recipe["shards"]["chat_template"] = _without_place(recipe["shards"]["chat_template"])
    recipe["strategy"] = strategy = {name: _without_place(value) for name, value in recipe["strategy"].items()}
    return {
        "recipe": recipe,
        "checkpoint": {"key": checkpoint.key, "version": checkpoint.version},
        "made_from": card["lineage"],
        "strategy": strategy,
        "chat_template": card["chat_template"],
        "n_contaminated": card.get("n_contaminated", 0),
        "training": checkpoint.details["result"],
        "evaluation": None if named.report is None else named.report.content["metrics"],
        "compared": dict(comparison),
        "files": {str(path.relative_to(folder)): file_sha256(path) for path in sorted(folder.rglob("*")) if path.is_file()},
    }


def _without_place(setting: str | None) -> str | None:
    """A file's name without the folders of the machine that it lay on."""
    return None if setting is None else Path(setting).name


def base_name(named: Named) -> str:
    """What the weights, and an adapter, were trained on top of: the recipe's base model, or the checkpoint it started from."""
    parent = named.checkpoint.details["card"]["lineage"].get("warm_start")
    return f"checkpoint {parent[:12]}" if parent else named.recipe.base_model


def prompt_text(card: Mapping[str, Any], tokenizer_json: Path) -> str:
    """What the model reads before its first answer, control tokens included."""
    template = ChatTemplate.from_json(card["chat_template"])
    tokenizer = template.open_tokenizer(tokenizer_json, max_tokens=2**31 - 1)
    conversation = conditioned_json([conditioned(turn, 0.0) for turn in card["prompt"]])
    return "".join(text for text, _, _ in tokenizer.render(conversation, add_generation_prompt=True))


def served_name(named: Named) -> str:
    """By which an evaluation with `client = "url"` finds this very checkpoint, unless its recipe says another name."""
    pattern = str(ServerSettings.model_fields["model"].default)
    return pattern.format(recipe=named.recipe.name, version=named.checkpoint.version[:VERSION_CHARS])


def asked(card: Mapping[str, Any], question: str) -> list[Turn]:
    """The card's prompt with a question in its place."""
    turns: list[Turn] = []
    for turn in card["prompt"]:
        turns.append({"role": turn["role"], "content": turn["content"].replace(QUESTION, question)})
    return turns


def model_card(named: Named, comparison: Mapping[str, Any], folder: Path) -> str:
    """README.md: how the model is asked and served, how it did, and what it was made of."""
    recipe, card, training = named.recipe, named.checkpoint.details["card"], named.checkpoint.details["result"]
    has_adapter = (folder / "adapter").is_dir()
    messages = json.dumps([dict(turn) for turn in card["prompt"]], indent=2, ensure_ascii=False)
    lines = [
        "---",
        "library_name: transformers",
        "pipeline_tag: text-generation",
        f"tags: [negative-aware-training, agent, {recipe.task}]",
        "---",
        "",
        f"# {recipe.name}",
        "",
        recipe.description,
        "",
        f"Trained from `{base_name(named)}`, {'LoRA' if has_adapter else 'all weights'} trained, strategy "
        f"`{recipe.strategy.name}`, task `{recipe.task}`.",
        "",
        "## Ask it so",
        "",
        f"The model was trained with this prompt and knows no other. `{QUESTION}` stands for the question:",
        "",
        *_fenced("json", messages),
        "",
        "As text, with the control tokens that its chat template writes:",
        "",
        *_fenced("text", prompt_text(card, folder / "model" / "tokenizer.json")),
        "",
        "## Serve it",
        "",
        *_fenced("sh", f"vllm serve ./model --served-model-name {served_name(named)} --generation-config ./model"),
        "",
        "The folder's chat template writes the text above of these messages: ask `/v1/chat/completions`."
        if comparison["template_writes_prompt"]
        else "The folder's chat template writes another text of these messages: send the text above to `/v1/completions`.",
        "",
        "`generation_config.json` decodes greedily and stops at the tokens by which its turns end; of the base model's own "
        "sampling settings nothing is carried over."
        + (
            f" `adapter/` is the LoRA alone, on top of `{base_name(named)}` (versions in lineage.json); that is a name of the "
            "deployment that trained it and of no hub."
            if has_adapter
            else ""
        ),
        "",
        "## How it did",
        "",
        *_table(_figures(named, training, comparison)),
        "",
        "## What it was made of",
        "",
        "`lineage.json` has the recipe, the versions of shards, base model and parent, the training's sums and each file's "
        "sha256.",
        "",
    ]
    return "\n".join(lines)


def _figures(named: Named, training: Mapping[str, Any], comparison: Mapping[str, Any]) -> dict[str, str]:
    figures = {
        "steps": str(training["steps"]),
        "tokens, of them trained": f"{training['tokens']:,}, {training['trained_share']:.1%}",
        "loss at the end": f"{training['final_loss']:.4f}",
        **{f"… of {name} rows": f"{loss:.4f}" for name, loss in training.get("final_loss_by_class", {}).items()},
    }
    if "heldout_loss" in training:
        figures["loss of held-out questions"] = f"{training['heldout_loss']:.4f} ({training['n_heldout_rows']} rows)"
    figures["loss of this folder's model"] = (
        f"{comparison['loss']:.4f} on {comparison['n_rows']} token rows of its shards, in a process of its own"
    )
    if "adapter" in comparison:
        adapter = comparison["adapter"]
        figures["merged model beside its adapter"] = (
            f"{adapter['top1_agreement']:.2%} of the most likely tokens agree, logits within {adapter['max_difference']:.1e}"
        )
    if named.report is not None:
        metrics = named.report.content["metrics"]
        figures["accuracy"] = (
            f"{metrics['accuracy_strict']:.1%} ({metrics['accuracy_strict_low']:.1%} to {metrics['accuracy_strict_high']:.1%}) "
            f"of {metrics['n']} questions of the split {named.recipe.evaluation.split}"
        )
    if n_contaminated := named.checkpoint.details["card"].get("n_contaminated", 0):
        figures["contaminated"] = f"{n_contaminated} rows ask questions that it was evaluated on"
    return figures


def _table(figures: Mapping[str, str]) -> list[str]:
    return ["| what | figure |", "| --- | --- |", *(f"| {name} | {figure} |" for name, figure in figures.items())]


def _fenced(kind: str, text: str) -> Sequence[str]:
    """A code block that its own text cannot close."""
    fence = "```"
    while fence in text:
        fence += "`"
    return [f"{fence}{kind}", text, fence]
