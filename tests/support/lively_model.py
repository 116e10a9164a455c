"""A tiny random model whose turns differ by what they are asked: larger weights than an untrained model's."""

from pathlib import Path

from negtraj_dagster.modeling import CONTROL_TOKENS, TURN_END, byte_tokenizer

N_TOKENS = len(CONTROL_TOKENS) + 256


def make_lively_model(folder: Path, *, dtype: str = "float32", n_tokens: int = N_TOKENS) -> Path:
    """Write a model that knows bytes, its weights stored in `dtype`; of more tokens for another tokenizer.json."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(5)
    config = LlamaConfig(
        vocab_size=n_tokens,
        hidden_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=96,
        max_position_embeddings=8192,
        initializer_range=0.4,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=CONTROL_TOKENS.index(TURN_END),
    )
    LlamaForCausalLM(config).to(getattr(torch, dtype)).save_pretrained(folder)
    byte_tokenizer().save(str(folder / "tokenizer.json"))
    return folder
