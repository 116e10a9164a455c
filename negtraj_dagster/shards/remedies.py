"""What to do about rows that were rejected: by their reason, the setting that would make them, or what else mends them."""

from collections.abc import Iterable

OTHER_TEMPLATE = (
    'choose a template that writes it, shards.chat_template: "base_model" is the model\'s own, "qwen3" writes tool calls, '
    "their results and reasoning"
)
SERVED = 'shards.reasoning = "as_served" makes a row of each prompt as it is served and the answer'
MEND = "mend the rollout, or drop it by a filter or overrides.csv"
REMEDIES = {
    "invalid_conversation": MEND,
    "invalid_weight": f"{MEND}; a weight (`loss`, `ranges`) is 0 or more, and stands on the agent's turns alone",
    "nothing_trained": f"{MEND}; some turn of the agent needs a weight (`loss`) above 0",
    "not_rendered": f'{OTHER_TEMPLATE} (with shards.reasoning = "per_turn_rows"); "drop" leaves the reasoning out instead',
    "template_refuses": f"{OTHER_TEMPLATE}; shards.template_settings sets what a template asks for",
    "template_reads_content": OTHER_TEMPLATE,
    "invalid_arguments": f"{MEND}; a call's arguments are a JSON object",
    "prompt_differs": SERVED,
    "target_differs": f'shards.reasoning = "per_turn_rows" ends a row with each turn of the agent; {SERVED}',
    "no_end_of_turn": 'choose a template that ends turns by a token, shards.chat_template: "base_model", "chatml", "qwen3"',
    "control_token_in_content": f"{MEND}: a model never writes that token as text",
    "no_token": "choose a base model whose tokenizer has a token for every byte",
    "over_length": 'raise shards.max_tokens up to the model\'s positions; shards.over_length = "cut_at_turn" keeps the '
    "beginning, but of rollouts whose prompt alone is longer: these want a base model with more positions",
    "engines_differ": OTHER_TEMPLATE,
    "joined_across_turn": "choose a template that writes a token between prompt and answer, shards.chat_template",
    "blank_turn": f'{MEND}; "loss": false keeps the turn as context',
    "reasoning_left": f'{MEND}; shards.reasoning = "keep" or "per_turn_rows" trains the reasoning instead',
    "tools_missing": 'land the tools\' schemas (`tools`) with the rollouts, or shards.missing_tools = "allow"',
    "ids_differ": 'shards.ids = "retokenize" tokenizes the text anew',
    "other_tokenizer": 'shards.ids = "retokenize" tokenizes the text anew; "rollout" wants the model that wrote it',
    "weights_differ": f"{MEND}: its weighted stretches begin or end within a token, or overlap",
}
LEFT_OUT = "shards.max_unproved_share allows a share of such rows to be left out"


def remedy(reason: str) -> str:
    """What to do about a row that was rejected for this reason; an older segment may have one that is no more."""
    return REMEDIES.get(reason, MEND)


def remedies(reasons: Iterable[str]) -> str:
    """A sentence for each reason, in their order."""
    return ". ".join(f"{reason}: {remedy(reason)}" for reason in reasons)
