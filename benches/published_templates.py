"""Which published chat templates make a token row of a plain question and answer, and why the others do not.

    python benches/published_templates.py FOLDER [tokenizer.json]

A line for each `.jinja` file of a folder: the setting `shards.reasoning` that makes the row (`keep`, else `as_served`), with
what is trained, or the reason. The tokenizer's added tokens are those that the template names or writes, on the vocabulary of
a tokenizer.json (a small one where none is named); a row counts where it is proved by Jinja itself.
"""

import json
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import pyarrow as pa  # noqa: E402

from negtraj_dagster import _trajtok  # noqa: E402, TID251 - asks the tokenizer itself
from negtraj_dagster.chat_templates import make_template, reference_render  # noqa: E402
from negtraj_dagster.errors import NegtrajError  # noqa: E402
from negtraj_dagster.schema import ConditionedTurn, conditioned_json  # noqa: E402
from negtraj_dagster.shards.tokenize import _make_prover, token_rule  # noqa: E402
from tests.support.template_tokenizers import template_tokenizer  # noqa: E402

TOKEN = re.compile(
    r"<\|[^<>\s'\"{}]{1,40}\|>|<｜[^<>'\"{}]{1,40}｜>|<[a-zA-Z_/][\w|:/\- ]{1,30}>|<\|[\w:]{1,30}>|<[\w:]{1,30}\|>"
    r"|\[/?[A-Z_]{2,25}\]|\]~[\w!\-\]]*\[|\[e~\[|<s>"
)
NO_TOKEN = re.compile(r"</?(?:function|parameter|tool\b|tools|name|description|type|required|important|result|items|invoke)")
"""Tags that templates write as text."""
TURNS: list[ConditionedTurn] = [
    {"role": "user", "content": "How many legs does a spider have?", "weight": 0.0},
    {"role": "assistant", "content": "A spider has eight legs.", "weight": 1.0},
]


def main(folder: Path, vocabulary: Path | None) -> None:
    """Print a line a template, and how many make a row."""
    made = []
    for file in sorted(folder.glob("*.jinja")):
        outcome = next(outcome for reasoning in ("keep", "as_served") if (outcome := attempt(file, vocabulary, reasoning)))
        made.append(outcome["row"])
        print(json.dumps({"template": file.name, **outcome}, ensure_ascii=False), flush=True)
    print(json.dumps({"templates": len(made), "keep": made.count("keep"), "as_served": made.count("as_served")}))


def attempt(file: Path, vocabulary: Path | None, reasoning: str) -> dict[str, Any] | None:
    """What became of the row; None where the next setting may make one."""
    source = file.read_text(encoding="utf-8")
    settings = {"bos_token": "<s>", "eos_token": "</s>", "today": "2026-01-31", "functions": "[]", "datetime": "2026-01-31"}
    is_last = reasoning == "as_served"
    template = make_template(file.name, source, settings=settings, as_served=is_last)
    with tempfile.TemporaryDirectory() as scratch:
        try:
            rule = token_rule(save_tokenizer(Path(scratch), source, settings, vocabulary).parent, template, 8192, "drop")
            tokenizer = template.open_tokenizer(rule.tokenizer_json, max_tokens=8192)
            conversation = {"row": conditioned_json(TURNS)}
            encoded = tokenizer.encode(list(conversation), list(conversation.values()))
            prover = _make_prover(rule, tokenizer)
            proof = prover.prove(pa.record_batch(encoded), conversation)
        except (_trajtok.TrajtokError, NegtrajError) as error:
            return {"row": "none", "why": str(error)} if is_last else None
        if rejected := [*encoded.rejected, *proof.rejected]:
            return {"row": "none", "why": f"{rejected[0][1]}: {rejected[0][2]}"} if is_last else None
        (row,) = pa.record_batch(encoded).to_pylist()
        ids = row["input_ids"]
        spans = zip(row["span_start"], row["span_end"], strict=True)
        return {"row": reasoning, "trained": "".join(prover.read(ids[start:stop]) for start, stop in spans)}


def save_tokenizer(folder: Path, source: str, settings: dict[str, str], vocabulary: Path | None) -> Path:
    """A tokenizer.json whose added tokens are those that the template names or writes."""
    try:
        written = reference_render(make_template("t", source, settings=settings))(TURNS, None, False)
    except Exception:  # templates are programs
        written = ""
    found = {*TOKEN.findall(source), *TOKEN.findall(written), settings["bos_token"], settings["eos_token"]}
    tokens = {token for token in found if not NO_TOKEN.match(token)}
    path = folder / "tokenizer.json"
    file = json.loads(template_tokenizer("").to_str() if vocabulary is None else vocabulary.read_text(encoding="utf-8"))
    present = {token["content"] for token in file["added_tokens"]}
    first = max([*file["model"]["vocab"].values(), *(token["id"] for token in file["added_tokens"])]) + 1
    for number, token in enumerate(sorted(tokens - present), first):
        flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        file["added_tokens"].append({"id": number, "content": token, **flags, "special": "think" not in token})
    path.write_text(json.dumps(file), encoding="utf-8")
    return path


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else None)
