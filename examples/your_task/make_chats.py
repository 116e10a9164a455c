"""Writes a file of chats to try docs/your_task.md with: an agent at a till that gets most of its sums wrong."""

import json
import random
import sys
from pathlib import Path

FRUIT = ("apples", "pears", "plums", "figs", "limes", "dates")
N_SAMPLES = 3
RIGHT_SHARE = 0.35


def chats(number: int) -> list[dict[str, object]]:
    """Some episodes on one order, as chat completions records, their prompt included."""
    rng = random.Random(number)
    fruit, other = rng.sample(FRUIT, 2)
    count, price, extra = rng.randint(2, 9), rng.randint(2, 9), rng.randint(10, 60)
    right = count * price + extra
    wrong = (count + price + extra, count * (price + extra), count * price)
    prompt = [
        {"role": "system", "content": "You keep the till. Answer with finish[number]."},
        {"role": "user", "content": f"Order {number}: {count} {fruit} at {price} each, {other} for {extra}. What is due?"},
    ]
    records: list[dict[str, object]] = []
    for sample in range(N_SAMPLES):
        answer = right if rng.random() < RIGHT_SHARE else rng.choice(wrong)
        turn = {
            "role": "assistant",
            "content": f"Thought: sum {sample} of {count}, {price}, {extra}.\nAction: finish[{answer}]",
        }
        outcome = {"resolved": answer == right, "gold": right, "pred": str(answer)}
        records.append({"messages": [*prompt, turn], "instance_id": f"order-{number}", "model": "till-1", **outcome})
    return records


if __name__ == "__main__":
    path, n_orders = Path(sys.argv[1]), int(sys.argv[2])
    lines = [json.dumps(record) for number in range(n_orders) for record in chats(number)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
