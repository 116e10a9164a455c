"""Texts to hold encoders against: real conversations, a copy no word cache helps with, and strings made to break things.

All of it is a function of a seed, but for the real conversations, which are NAT's published files where they are at hand.
What may be larger than memory is a generator.
"""

import json
import random
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import chain, product
from pathlib import Path

from negtraj_dagster.schema import ConditionedTurn, Question
from negtraj_dagster.strategies import STRATEGIES
from negtraj_dagster.strategies.prompt_file import read_prompt_file

Conversation = list[ConditionedTurn]

N_REAL = 2333
N_CODE_POINTS = 0x110000
_CLASSES = ("positive", "negative")
_WORD = re.compile(r"[A-Za-z]{4,}")
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


# --- Conversations ---------------------------------------------------------------------------------------------------------


def real_conversations(nat_dir: Path) -> list[Conversation]:
    """NAT's 1,070 right and 1,263 wrong StrategyQA rollouts, conditioned as strategy `nat` does, with NAT's own prompts."""
    prompt = read_prompt_file(nat_dir / "prompts/StrategyQA/StrategyQA_conversation.json", "zero-shot-target-aware")
    asked = {row["id"]: row["question"] for row in map(json.loads, (nat_dir / "strategyqa/train.jsonl").open(encoding="utf-8"))}
    conversations = []
    for class_name in _CLASSES:
        for rollout in json.loads((nat_dir / f"strategyqa/strategyqa_gpt-3.5_{class_name}.json").read_text("utf-8")):
            question = Question("strategyqa", rollout["id"], "train", asked[rollout["id"]], answer="")
            conversations.append(STRATEGIES["nat"].condition(prompt, question, rollout["conversations"], class_name))
    assert len(conversations) == N_REAL
    return conversations


def hostile_conversations(conversations: Sequence[Conversation], *, copies: int = 1, seed: int = 0) -> Iterator[Conversation]:
    """The conversations again and again, a letter changed in 30 % of the words of four letters or more, never twice alike.

    A cache from word to ids profits from a corpus that repeats itself; this one keeps the shape and repeats little.
    """
    draw = random.Random(seed)

    def change(match: re.Match[str]) -> str:
        word = match.group()
        if draw.random() >= 0.3:
            return word
        at = draw.randrange(len(word))
        return word[:at] + draw.choice(_LETTERS) + word[at + 1 :]

    for _ in range(copies):
        for conversation in conversations:
            yield [{**turn, "content": _WORD.sub(change, turn["content"])} for turn in conversation]


def conversation_json(conversation: Conversation) -> str:
    """The JSON text that `_trajtok.Tokenizer.encode` reads."""
    return json.dumps({"messages": conversation}, ensure_ascii=False)


def conversation_text(conversation: Conversation) -> str:
    """All contents as one text."""
    return "\n".join(turn["content"] for turn in conversation)


# --- Adversarial strings ---------------------------------------------------------------------------------------------------


def adversarial_texts(added_tokens: Iterable[str] = (), *, seed: int = 0) -> list[str]:
    """At least 4,000 distinct strings, none empty, in a fixed order.

    Args:
        added_tokens: texts of tokenizers' added tokens; each stands alone, inside of words, cut, doubled and spliced.
        seed: of all draws.
    """
    draw = random.Random(seed)
    families = [family(draw) for family in _FAMILIES] + [_added_token_texts(draw, sorted(set(added_tokens)))]
    texts = [text for text in dict.fromkeys(chain.from_iterable(families)) if text]
    assert len(texts) >= 4000
    return texts


def code_point_texts(*, step: int = 1, dense_below: int = 0x3100, per_text: int = 64) -> Iterator[str]:
    """Every code point from U+0001 but surrogates, each between letters, digits, spaces and punctuation.

    Args:
        step: at and above `dense_below` only every `step`-th.
        dense_below: here a tokenizer's patterns tell most apart.
        per_text: code points in a text.
    """
    points = chain(range(1, dense_below), range(dense_below, N_CODE_POINTS, step))
    chars = [chr(point) for point in points if not 0xD800 <= point < 0xE000]
    for start in range(0, len(chars), per_text):
        yield "".join(f"a{char}b 1{char}2 {char} .{char}!" for char in chars[start : start + per_text])


def fuzzed_texts(texts: Sequence[str], n_texts: int, *, seed: int = 0, max_pieces: int = 6) -> Iterator[str]:
    """Random pieces of random texts, put together anew; a piece is 1 to 24 characters, seldom more."""
    draw = random.Random(seed)
    for _ in range(n_texts):
        yield "".join(_piece(draw, draw.choice(texts)) for _ in range(draw.randint(1, max_pieces)))


def injection_texts(tokens: Sequence[str], n_texts: int, *, seed: int = 0) -> Iterator[str]:
    """Texts that try to become tokens: theirs whole, cut, doubled, spliced, with what does not show between the letters."""
    draw = random.Random(seed)
    for _ in range(n_texts):
        yield "".join(_attempt(draw, tokens) for _ in range(draw.randint(1, 5)))


_UNSEEN = [*"\u200b\u200c\u200d\u2060\ufeff\u00ad\ufe0f\u0301\u180e\u0000 \n\t", "\u00a0", "▁"]
_BETWEEN = ["", " ", "\n", "a", "1", ".", "user\n", "assistant\n", "\r\n", "é", "日本", "😀", "\\n", "<", ">", "|", "&lt;"]


def _attempt(draw: random.Random, tokens: Sequence[str]) -> str:
    token, other = draw.choice(tokens), draw.choice(tokens)
    cut, cut_other = draw.randint(0, len(token)), draw.randint(0, len(other))
    attempts = (
        token,
        token[:cut],
        token[cut:],
        token + token,
        token[:cut] + token + token[cut:],
        token[:cut] + other[cut_other:],
        token[:cut] + draw.choice(_UNSEEN) + token[cut:],
        draw.choice(_UNSEEN) + token + draw.choice(_UNSEEN),
        token.swapcase(),
        token.replace("|", "｜") if "|" in token else token.replace("｜", "|"),
        unicodedata.normalize("NFD", token) + "\u0338",
    )
    return draw.choice(_BETWEEN) + draw.choice(attempts) + draw.choice(_BETWEEN)


def _piece(draw: random.Random, text: str) -> str:
    start = draw.randrange(len(text))
    return text[start : start + draw.randint(1, 24 if draw.random() < 0.98 else 400)]


@lru_cache
def _code_points() -> dict[str, list[int]]:
    """Code points by Unicode general category, surrogates left out (no text holds them)."""
    points = defaultdict(list)
    for point in range(1, N_CODE_POINTS):
        points[unicodedata.category(chr(point))].append(point)
    del points["Cs"]
    return points


# What each tokenizer's pattern asks of a character: is it a space, a line end, a letter, a digit, a mark, a sign?
_SPACES = [chr(point) for point in range(1, 0x3001) if chr(point).isspace()]
_NEAR_SPACES = [*"\u180e\u200b\u200c\u200d\u2060\ufeff\u00ad\u115f\u3164\uffa0", "\u0000"]
_LINE_ENDS = ["\n", "\r", "\r\n", "\n\r", "\n\n", "\r\r", "\v", "\f", "\u0085", "\u2028", "\u2029"]
_NEIGHBOURS = ["a", "Z", "é", "中", "1", "٣", ".", "'", "-", " ", "  ", "\n", "\t", "\u00a0", "_", "😀", "\u0301", ""]
_APOSTROPHES = ["'", "\u2019", "\u02bc", "\uff07", "`", "\u2032"]
_BLOCKS = [
    (0x00C0, 0x024F), (0x0250, 0x02AF), (0x0370, 0x03FF), (0x0400, 0x052F), (0x0531, 0x0587), (0x05D0, 0x05EA),
    (0x0620, 0x06D3), (0x0710, 0x074A), (0x0780, 0x07B1), (0x07CA, 0x07F5), (0x0900, 0x097F), (0x0980, 0x09FE),
    (0x0A01, 0x0A75), (0x0A81, 0x0AF9), (0x0B01, 0x0B77), (0x0B82, 0x0BFA), (0x0C00, 0x0C7F), (0x0C80, 0x0CF2),
    (0x0D00, 0x0D7F), (0x0D81, 0x0DF4), (0x0E01, 0x0E5B), (0x0E81, 0x0EDF), (0x0F00, 0x0FDA), (0x1000, 0x109F),
    (0x10A0, 0x10FF), (0x1100, 0x11FF), (0x1200, 0x139F), (0x13A0, 0x13FD), (0x1401, 0x167F), (0x1681, 0x169A),
    (0x16A0, 0x16F8), (0x1780, 0x17F9), (0x1800, 0x18AA), (0x1E00, 0x1FFE), (0x2C00, 0x2C5F), (0x2D30, 0x2D7F),
    (0x3041, 0x30FF), (0x3105, 0x312F), (0x3131, 0x318E), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xA000, 0xA48C),
    (0xA4D0, 0xA4FF), (0xA500, 0xA62B), (0xAA80, 0xAADF), (0xAC00, 0xD7A3), (0xF900, 0xFAD9), (0xFB00, 0xFB4F),
    (0xFB50, 0xFDFF), (0xFE70, 0xFEFC), (0xFF01, 0xFFEE), (0x10000, 0x100FA), (0x10330, 0x1034A), (0x10400, 0x1049D),
    (0x12000, 0x12399), (0x13000, 0x1342E), (0x1D400, 0x1D7FF), (0x1E900, 0x1E959), (0x20000, 0x2A6DF), (0x30000, 0x3134A),
]  # fmt: skip


def _draw_char(draw: random.Random, category: str) -> str:
    return chr(draw.choice(_code_points()[category]))


def _fixed(_draw: random.Random) -> Iterator[str]:
    yield from [
        "a",
        " ",
        "\n",
        "\u0001",
        "\u0000",
        "\u007f\u0080\u009f",
        "\ufeffBOM",
        "x\ufeff",
        "\ufffd",
        "\ufffe\uffff",
        "\U0010ffff",
    ]
    yield from [
        "a\u0300" * 500,
        "Zalgo t̴̢̧e̷x̶t̵",
        "ﷺ" * 30,
        "ǅ ǈ ΑΣ ς İ ı ẞ ŉ ﬅ ſ K Å",
        "①②③ Ⅷ ½ ² ௰ 〇 𝟘",
        "🏴\U000e0067\U000e0062\U000e007f",
    ]
    yield from [
        "日本語のテキスト処理" * 20,
        "한국어 텍스트 " * 20,
        "กำลังทดสอบ" * 20,
        "שלום עולם " * 20,
        "नमस्ते दुनिया " * 20,
        "العربية " * 20,
    ]
    for n_chars, text in product(
        (1, 2, 3, 4, 7, 15, 16, 17, 31, 33, 63, 65, 127, 129, 255, 257, 1025, 5000), "a Aé中1-\n\t.😀▁\u00a0\u0301"
    ):
        yield text * n_chars
    for n_chars, text in product(
        (2, 3, 100, 1000), ("ab", "a ", " a", "a1", "a.", ". ", "\r\n", "\n ", " \n", "aé", "中a", "▁a", "é", "12 ")
    ):
        yield text * n_chars


def _categories(draw: random.Random) -> Iterator[str]:
    """Each general category among letters, digits, spaces and signs."""
    for category in sorted(_code_points()):
        for _ in range(24):
            yield "".join(_draw_char(draw, category) + draw.choice(_NEIGHBOURS) for _ in range(draw.randint(1, 12)))


def _spaces(draw: random.Random) -> Iterator[str]:
    for space in [*_SPACES, *_NEAR_SPACES]:
        for shape in (
            "{}",
            "a{}b",
            "a{}{}b",
            "a {}b",
            "a{} b",
            "{}\n",
            "\n{}",
            "a{}\nb",
            "1{}2",
            ".{}.",
            "a{}",
            "{}a",
            "{}'s",
            "\r{}\n",
        ):
            yield shape.replace("{}", space)
    for _ in range(500):
        runs = (draw.choice([_SPACES, _NEAR_SPACES, _LINE_ENDS, [" "]]) for _ in range(draw.randint(1, 5)))
        yield (
            draw.choice(_NEIGHBOURS) + "".join(draw.choice(run) * draw.randint(1, 4) for run in runs) + draw.choice(_NEIGHBOURS)
        )


def _contractions(draw: random.Random) -> Iterator[str]:
    """Patterns ignore case in 's, 't, 're, 've, 'm, 'll, 'd: long s (U+017F) folds to s, the Kelvin sign to k."""
    endings = [
        "s",
        "t",
        "re",
        "ve",
        "m",
        "ll",
        "d",
        "ſ",
        "S",
        "T",
        "RE",
        "Re",
        "rE",
        "VE",
        "vE",
        "M",
        "LL",
        "lL",
        "D",
        "K",
        "é",
        "l",
        "r",
        "v",
    ]
    for apostrophe, ending in product(_APOSTROPHES, endings):
        yield f"it{apostrophe}{ending}"
        yield f"it{apostrophe}{ending}x {apostrophe}{ending} 1{apostrophe}{ending}\n{apostrophe}{ending}{apostrophe}{ending}"
    for _ in range(200):
        yield "".join(draw.choice([*_APOSTROPHES, *endings, *_NEIGHBOURS]) for _ in range(draw.randint(2, 12)))


def _digits(draw: random.Random) -> Iterator[str]:
    points = _code_points()
    zeros = [point for point in points["Nd"] if unicodedata.digit(chr(point)) == 0]
    for zero in zeros:
        for n_digits in (1, 2, 3, 4, 7):
            yield "x" + "".join(chr(zero + draw.randrange(10)) for _ in range(n_digits)) + draw.choice(_NEIGHBOURS)
    for _ in range(200):
        kinds = [chr(draw.choice(points[draw.choice(("Nd", "Nl", "No"))])) for _ in range(draw.randint(1, 9))]
        yield draw.choice(["", " ", "-", "$"]) + draw.choice(["", ",", ".", " "]).join(kinds) + draw.choice(_NEIGHBOURS)


def _scripts(draw: random.Random) -> Iterator[str]:
    for start, end in _BLOCKS:
        for _ in range(6):
            words = (
                "".join(chr(draw.randint(start, end)) for _ in range(draw.randint(1, 9))) for _ in range(draw.randint(1, 8))
            )
            yield draw.choice([" ", " ", "", ", ", "\u200c", "\n", "a"]).join(words)


def _emoji(draw: random.Random) -> Iterator[str]:
    people = "👩👨🧑👧👦🧒"
    tones = ["", *"🏻🏼🏽🏾🏿"]
    flags = [chr(point) for point in range(0x1F1E6, 0x1F200)]
    for _ in range(300):
        family = "\u200d".join(draw.choice(people) + draw.choice(tones) for _ in range(draw.randint(1, 4)))
        flag = "".join(draw.choice(flags) for _ in range(draw.randint(1, 5)))
        keycap = draw.choice("0123456789#*") + draw.choice(["", "\ufe0f"]) + "\u20e3"
        tag = "🏴" + "".join(chr(0xE0000 + ord(char)) for char in draw.choice(["gbsct", "gbwls", "usca"])) + "\U000e007f"
        heart = "❤" + draw.choice(["", "\ufe0e", "\ufe0f"]) + draw.choice(["", "\u200d🔥"])
        parts = draw.sample([family, flag, keycap, tag, heart, "a", " ", "\u200d", "\ufe0f", "1"], k=draw.randint(1, 6))
        yield "".join(parts)


def _forms(draw: random.Random) -> Iterator[str]:
    """Composed, decomposed, compatibility forms; jamo that compose; marks in a wrong order; composition exclusions."""
    composed = [point for point in chain(*_code_points().values()) if unicodedata.decomposition(chr(point))]
    marks = _code_points()["Mn"]
    excluded = (
        "\u0958\u09dc\u0a33\u0b5c\u0f43\ufb1d\ufb2a\u2adc"
        "\U0001d15e\u212b\u2126\u0340\u0341\u0374\u037e\u0387\u1fef\uf900\U0002f800"
    )
    for char in excluded:
        yield f"a{char}b"
    for _ in range(300):
        text = "".join(chr(draw.choice(composed)) + draw.choice(["", "", " ", "a"]) for _ in range(draw.randint(1, 8)))
        yield unicodedata.normalize(draw.choice(["NFC", "NFD", "NFKC", "NFKD"]), text)
        yield text
    for _ in range(150):
        yield "".join(
            draw.choice("aeoAEOnñé가") + "".join(chr(draw.choice(marks)) for _ in range(draw.randint(0, 4))) for _ in range(4)
        )
    for _ in range(150):
        jamo = (
            draw.choice([(0x1100, 0x1112), (0x1161, 0x1175), (0x11A7, 0x11C2), (0xAC00, 0xD7A3), (0x1113, 0x11FF)])
            for _ in range(9)
        )
        yield "".join(chr(draw.randint(*ends)) for ends in jamo)


def _code(draw: random.Random) -> Iterator[str]:
    names = ["x", "self.value", "_private", "__init__", "camelCase", "SCREAMING_CASE", "n2", "été", "変数", "a1b2c3"]
    signs = [
        "==",
        "!=",
        "->",
        "=>",
        "::",
        "...",
        "**",
        "//",
        "<<=",
        "&&",
        "||",
        "??",
        "+=",
        "{}",
        "[]",
        "();",
        "/*",
        "*/",
        "#!",
        "\\n",
        "\\",
    ]
    for _ in range(300):
        lines = []
        for _ in range(draw.randint(1, 6)):
            indent = draw.choice(["", "    ", "\t", "  ", " \t ", "        "])
            tokens = (
                draw.choice([*names, *signs, "0x1F", "1_000.5e-3", '"a b"', "'s'", ",", ";", ":"])
                for _ in range(draw.randint(1, 9))
            )
            lines.append(indent + draw.choice([" ", "", "  "]).join(tokens) + draw.choice(["", " ", ";", "\t"]))
        yield draw.choice(["\n", "\r\n", "\n\n", "\r"]).join(lines)


def _urls(draw: random.Random) -> Iterator[str]:
    parts = [
        "www.",
        "example",
        ".com",
        "/a/b",
        "?q=1",
        "&x[]=%20",
        "#frag",
        ":8080",
        "user@",
        "münchen.de",
        "%F0%9F%98%80",
        "~me",
        "=",
        "..",
        "//",
    ]
    for _ in range(150):
        start = draw.choice(["https://", "HTTP://", "ftp://", "mailto:", "file:///", "C:\\", "\\\\host\\", "//"])
        yield start + "".join(draw.choice(parts) for _ in range(draw.randint(1, 7))) + draw.choice(["", ".", ")", "\n", " x"])


def _look_like_tokens(draw: random.Random) -> Iterator[str]:
    """What a vocabulary writes for something else: SentencePiece's ▁ and byte pieces, byte-level BPE's letters."""
    parts = [
        "▁",
        "▁▁",
        "▁the",
        "<0x41>",
        "<0x0A>",
        "<0xE2>",
        "<0x",
        "41>",
        "Ġ",
        "Ċ",
        "ĉ",
        "Ġthe",
        "Ń",
        "##ing",
        "</w>",
        "@@",
        "<unk>",
        " ",
        "a",
        "é",
    ]
    yield from parts
    for _ in range(300):
        yield "".join(draw.choice(parts) for _ in range(draw.randint(2, 8)))


def _not_characters(draw: random.Random) -> Iterator[str]:
    points = _code_points()
    outside = [*range(0xFDD0, 0xFDF0), *(plane + end for plane in range(0, N_CODE_POINTS, 0x10000) for end in (0xFFFE, 0xFFFF))]
    pools = [points["Cc"], points["Cf"], points["Co"], points["Cn"], outside, list(range(0xE0000, 0xE0080))]
    for _ in range(300):
        yield "".join(chr(draw.choice(draw.choice(pools))) + draw.choice(_NEIGHBOURS) for _ in range(draw.randint(1, 10)))


def _anything(draw: random.Random) -> Iterator[str]:
    common = list(
        "abcXYZ 0123 \n\t'\".,;:!?-_()[]{}<>|/\\@#$%^&*+=~`éüñßøΩЖ中文字日本語한국😀👍🏽\u0301\u200d\u00a0\u3000\u2028\ufeff"
    )
    categories = sorted(_code_points())
    for _ in range(900):
        yield "".join(draw.choice(common) for _ in range(draw.randint(1, 80)))
    for _ in range(400):
        yield "".join(_draw_char(draw, draw.choice(categories)) for _ in range(draw.randint(1, 60)))


def _added_token_texts(draw: random.Random, tokens: Sequence[str]) -> Iterator[str]:
    for token in tokens:
        other = draw.choice(tokens)
        cut, cut_other = draw.randrange(len(token) + 1), draw.randrange(len(other) + 1)
        yield token
        yield f"a{token}b {token} {token}{token}1{token}"
        yield token[:cut] + draw.choice(["\u200b", " ", "\u200d", "\u0301", "x", "\ufeff"]) + token[cut:]
        yield token[:cut] + token + token[cut:]
        yield token[:cut] + other[cut_other:]
        yield token[1:] + token[:-1]


_FAMILIES: list[Callable[[random.Random], Iterator[str]]] = [
    _fixed,
    _categories,
    _spaces,
    _contractions,
    _digits,
    _scripts,
    _emoji,
    _forms,
    _code,
    _urls,
    _look_like_tokens,
    _not_characters,
    _anything,
]
