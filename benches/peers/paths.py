"""One peer's way from conversations to trainable rows, in this process; `make bench-trajtok` runs it.

    python paths.py trl|transformers|llamafactory TOKENIZER_JSON CONVERSATIONS_JSONL N_CONVERSATIONS

Prints one JSON object: seconds, without imports, loading and fifty conversations before; tokens and rows that came out.
Every peer writes ChatML and trains the assistant's turns alone; LLaMA-Factory's template adds its default system message.
"""

import argparse
import itertools
import json
import os
import tempfile
import time
from collections.abc import Callable
from typing import Any

SCRATCH = tempfile.TemporaryDirectory()
os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": SCRATCH.name, "DISABLE_VERSION_CHECK": "1"}

from transformers import PreTrainedTokenizerFast  # noqa: E402

clock = time.process_time if os.environ.get("BENCH_CLOCK") == "cpu" else time.perf_counter
MAX_TOKENS = 4096
N_TOUCHED = 50
LLAMAFACTORY_BATCH = 1000
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}"
    "{% else %}{{ message['content'] + '<|im_end|>' }}{% endif %}{{ '\n' }}{% endfor %}"
)

Conversation = list[dict[str, str]]
Prepared = tuple[float, list[list[int]]]
"""Seconds, and the rows' input ids."""


def read_conversations(path: str, n_conversations: int) -> list[Conversation]:
    """The first conversations of a file, role and content alone."""
    with open(path, encoding="utf-8") as lines:
        rows = [json.loads(line)["messages"] for line in itertools.islice(lines, n_conversations)]
    return [[{"role": turn["role"], "content": turn["content"]} for turn in row] for row in rows]


def load_tokenizer(path: str) -> PreTrainedTokenizerFast:
    """The tokenizer with ChatML as its template."""
    names = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    return PreTrainedTokenizerFast(tokenizer_file=path, chat_template=CHATML, clean_up_tokenization_spaces=False, **names)


def prepare_with_transformers(tokenizer: PreTrainedTokenizerFast, conversations: list[Conversation]) -> Prepared:
    """`apply_chat_template` with the assistant's mask, and labels from it; no packing."""

    def encode(conversation: Conversation) -> tuple[list[int], list[int]]:
        row = tokenizer.apply_chat_template(
            conversation, return_dict=True, return_assistant_tokens_mask=True, truncation=True, max_length=MAX_TOKENS
        )
        pairs = zip(row["input_ids"], row["assistant_masks"], strict=True)
        return row["input_ids"], [token if is_trained else -100 for token, is_trained in pairs]

    for conversation in conversations[:N_TOUCHED]:
        encode(conversation)
    start = clock()
    rows = [encode(conversation) for conversation in conversations]
    return clock() - start, [input_ids for input_ids, _ in rows]


def prepare_with_trl(tokenizer: PreTrainedTokenizerFast, conversations: list[Conversation]) -> Prepared:
    """`SFTTrainer`'s own preparation: assistant_only_loss, bfd packing."""
    from datasets import Dataset
    from transformers import LlamaConfig, LlamaForCausalLM
    from trl import SFTConfig, SFTTrainer

    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), num_key_value_heads=2, **sizes))
    options = {"assistant_only_loss": True, "packing": True, "packing_strategy": "bfd", "padding_free": True}
    config = SFTConfig(
        output_dir=SCRATCH.name, max_length=MAX_TOKENS, report_to=[], use_cpu=True, bf16=False, disable_tqdm=True, **options
    )
    seconds = []
    prepare = SFTTrainer._prepare_dataset

    def timed(*args: Any, **kwargs: Any) -> Any:
        start = clock()
        prepared = prepare(*args, **kwargs)
        seconds.append(clock() - start)
        return prepared

    SFTTrainer._prepare_dataset = timed
    for conversation in conversations[:N_TOUCHED]:
        tokenizer.apply_chat_template(conversation, return_dict=True, return_assistant_tokens_mask=True)
    data = Dataset.from_list([{"messages": conversation} for conversation in conversations])
    trainer = SFTTrainer(model, args=config, train_dataset=data, processing_class=tokenizer)
    return sum(seconds), list(trainer.train_dataset["input_ids"])


def prepare_with_llamafactory(tokenizer: PreTrainedTokenizerFast, conversations: list[Conversation]) -> Prepared:
    """The supervised processor, in batches of a thousand as it is used; no packing."""
    from llamafactory.data.processor.supervised import SupervisedDatasetProcessor
    from llamafactory.data.template import TEMPLATES
    from llamafactory.hparams.data_args import DataArguments

    arguments = DataArguments(template="qwen", cutoff_len=MAX_TOKENS)
    processor = SupervisedDatasetProcessor(template=TEMPLATES["qwen"], tokenizer=tokenizer, processor=None, data_args=arguments)

    def encode(batch: list[Conversation]) -> list[list[int]]:
        known = {"_prompt": [row[:-1] for row in batch], "_response": [row[-1:] for row in batch]}
        texts = {name: [""] * len(batch) for name in ("_system", "_tools")}
        media = {name: [None] * len(batch) for name in ("_images", "_videos", "_audios")}
        return list(processor.preprocess_dataset({**known, **texts, **media})["input_ids"])

    encode(conversations[:N_TOUCHED])
    start = clock()
    rows = []
    for at in range(0, len(conversations), LLAMAFACTORY_BATCH):
        rows += encode(conversations[at : at + LLAMAFACTORY_BATCH])
    return clock() - start, rows


PEERS: dict[str, Callable[[PreTrainedTokenizerFast, list[Conversation]], Prepared]] = {
    "trl": prepare_with_trl,
    "transformers": prepare_with_transformers,
    "llamafactory": prepare_with_llamafactory,
}


def main() -> None:
    """Run one peer."""
    parser = argparse.ArgumentParser()
    parser.add_argument("peer", choices=PEERS)
    parser.add_argument("tokenizer")
    parser.add_argument("conversations")
    parser.add_argument("n_conversations", type=int)
    args = parser.parse_args()
    conversations = read_conversations(args.conversations, args.n_conversations)
    seconds, rows = PEERS[args.peer](load_tokenizer(args.tokenizer), conversations)
    print(json.dumps({"seconds": seconds, "n_tokens": sum(map(len, rows)), "n_rows": len(rows)}))


if __name__ == "__main__":
    main()
