"""Rules by which an answer is right, for tasks that are declared by settings: each with a strict and a lenient reading.

Strict is what published evaluations count; lenient forgives wording and never takes an answer that says two things.
"""

import json
import re
import string
import sys
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from negtraj_dagster.tasks.base import Score
from negtraj_dagster.tasks.numbers import begins_with_number, read_only_number

DENIAL = re.compile(r"\b(?:not|never|neither|nor|hardly|cannot)\b|n['’]t\b")
"""`Not yes` says neither; `No, it is not` says no."""
CLAUSE = re.compile(r"[,.;:!?]|\b(?:so|therefore|thus|hence|answer is)\b")
"""Begins a clause: a denial before it denies something else."""
NUMBERED = re.compile(r"\bno\.\s*\d")
YES_NO = re.compile(r"\b(yes|no)\b", re.IGNORECASE)
FIRST = re.compile(r"(yes|no)(?=\W*$|\s*[,.;:!])")
LAST = re.compile(r"\b(yes|no)\W*$")
ARTICLES = re.compile(r"\b(?:a|an|the)\b")
CHOICE = re.compile(r"\(?([A-Za-z])\)?[.):]?(?=\s|$)")
"""`B`, `(b)`, `B.`, `B) two metres`."""
CHOICE_IN_WORDS = re.compile(r"(?:\b(?:answer|choice|option)(?:\s+is|:)?\s*)\(?([A-Za-z])\)?(?![\w'’])", re.IGNORECASE)
WORDS_WITHOUT_OVERLAP = ("yes", "no", "noanswer")
WRONG = Score(strict=False, lenient=False)


@dataclass(frozen=True)
class Scorer:
    """One rule.

    Attributes:
        version: rises when it judges otherwise.
        score: (prediction, right answer as JSON text) -> both readings.
        is_valid: whether an answer is of the kind that is asked for, right or wrong.
        read: the right answer of a question file's row as JSON text; ValueError says what was expected.
        unanswered: the score of an episode that ends without an answer.
    """

    version: int
    score: Callable[[str, str], Score]
    is_valid: Callable[[str], bool]
    read: Callable[[object], str]
    unanswered: Score = WRONG


def f1_score(prediction: str, right: str) -> float:
    """Overlap of the words of two answers from 0 to 1, as SQuAD's and HotpotQA's evaluations count it.

    Both in lower case without punctuation and articles; yes, no and noanswer equal themselves only. Computed from precision and
    recall in the published order (hotpotqa/hotpot `hotpot_evaluate_v1.py`), so that it is equal to the last bit.
    """
    words, right_words = normalise_answer(prediction).split(), normalise_answer(right).split()
    if words != right_words and (" ".join(words) in WORDS_WITHOUT_OVERLAP or " ".join(right_words) in WORDS_WITHOUT_OVERLAP):
        return 0.0
    n_same = sum((Counter(words) & Counter(right_words)).values())
    if n_same == 0:
        return 0.0
    precision, recall = n_same / len(words), n_same / len(right_words)
    return 2 * precision * recall / (precision + recall)


def normalise_answer(text: str) -> str:
    """An answer without case, punctuation, articles and spaces that are not needed (SQuAD's `normalize_answer`)."""
    letters = "".join(character for character in text.lower() if character not in string.punctuation)
    return " ".join(ARTICLES.sub(" ", letters).split())


def score_yes_no(prediction: str, answer: str) -> Score:
    """Strict: exactly yes or no, any case (arXiv 2402.11651's code). Lenient: begins or ends with the one yes/no it says.

    "Most likely yes" and "No, since …" are answers; "there is no study of it", "not yes" and "No. 10" are none.
    """
    right = "yes" if json.loads(answer) else "no"
    text = prediction.strip().lower()
    words = {word.lower() for word in YES_NO.findall(text)}
    verdict = FIRST.match(text) or LAST.search(text)
    is_clear = verdict is not None and NUMBERED.search(text) is None
    if verdict is not None and FIRST.match(text) is None:
        is_clear = is_clear and not DENIAL.search(CLAUSE.split(text[: verdict.start()])[-1])
    return Score(strict=text == right, lenient=words == {right} and is_clear)


def is_yes_or_no(prediction: str) -> bool:
    """Yes or no and nothing else, but for case, spaces and a full stop."""
    return prediction.strip().rstrip(".").lower() in ("yes", "no")


def _score_number(prediction: str, answer: str) -> Score:
    """Strict: the right number's digits and nothing else. Lenient: the answer says one number (`numbers.py`), and an equal one.

    Strict is the string equality of arXiv 2402.11651's code (Reason-Wang/NAT at 5f25412), which takes commas out of the right
    answer and nothing out of the prediction: `4.0`, `$4` and `1,000` are wrong. The right answer is written without a point
    where it is whole, as GSM8K, ASDiv and MultiArith write all of theirs; SVAMP writes `152.0`, which is 152 here.
    """
    strict = prediction == answer
    return Score(strict=strict, lenient=strict or read_only_number(prediction) == float(json.loads(answer)))


def _score_exact(prediction: str, answer: str) -> Score:
    """Strict: a right answer, letter by letter but for spaces around it. Lenient: without case, marks and needless spaces."""
    accepted = _accepted(answer)
    return Score(
        strict=prediction.strip() in [text.strip() for text in accepted],
        lenient=_plain_text(prediction) in [_plain_text(text) for text in accepted],
    )


def _score_f1(prediction: str, answer: str) -> Score:
    """Strict: equal once normalised (exact match). Lenient: all words overlap (F1 = 1), in any order. With the best F1."""
    accepted = _accepted(answer)
    strict = normalise_answer(prediction) in [normalise_answer(text) for text in accepted]
    f1 = max(f1_score(prediction, text) for text in accepted)
    return Score(strict=strict, lenient=strict or f1 == 1.0, f1=f1)


def _score_choice(prediction: str, answer: str) -> Score:
    """Strict: the letter alone, any case. Lenient: begins with it, or names it as the answer, and names no other."""
    right = str(json.loads(answer)).upper()
    text = prediction.strip()
    first = CHOICE.match(text)
    letters = {first[1].upper()} if first else {letter.upper() for letter in CHOICE_IN_WORDS.findall(text)}
    return Score(strict=text.strip("().:").upper() == right, lenient=letters == {right})


def _score_recorded(_prediction: str, _answer: str) -> Score:
    """Nothing can be told by an answer's text: the recorded reward alone counts."""
    return WRONG


def _accepted(answer: str) -> list[str]:
    """The right answers: JSON text of one, or of a list of several."""
    value = json.loads(answer)
    return [str(text) for text in value] if isinstance(value, list) else [str(value)]


def _plain_text(text: str) -> str:
    letters = unicodedata.normalize("NFKC", text).casefold()
    return " ".join("".join(character for character in letters if character.isalnum() or character.isspace()).split())


def _read_yes_no(value: object) -> str:
    words = {"yes": True, "true": True, "no": False, "false": False}
    if isinstance(value, str):
        value = words.get(value.strip().lower(), value)
    if not isinstance(value, bool):
        raise ValueError("yes or no, true or false")
    return json.dumps(value)


def _read_number(value: object) -> str:
    if isinstance(value, str):
        value = read_only_number(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= sys.float_info.max:
        raise ValueError("a number")
    return json.dumps(int(value) if float(value).is_integer() else value)


def _read_choice(value: object) -> str:
    letter = value.strip("() .").upper() if isinstance(value, str) else ""
    if not re.fullmatch("[A-Z]", letter):
        raise ValueError("a letter")
    return json.dumps(letter)


def _read_text(value: object) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str) and value and all(isinstance(text, str) for text in value):
        return json.dumps(list(value), ensure_ascii=False)
    if isinstance(value, bool) or not isinstance(value, (str, int, float)) or value == "":
        raise ValueError("a text, or a list of texts that are all right")
    return json.dumps(str(value), ensure_ascii=False)


def _read_anything(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True)


def _says_something(prediction: str) -> bool:
    return bool(prediction.strip())


def _is_number(prediction: str) -> bool:
    return begins_with_number(prediction) and read_only_number(prediction) is not None


def _is_choice(prediction: str) -> bool:
    return CHOICE.match(prediction.strip()) is not None


SCORERS: dict[str, Scorer] = {
    "exact": Scorer(1, _score_exact, _says_something, _read_text),
    "yes_no": Scorer(3, score_yes_no, is_yes_or_no, _read_yes_no),
    "number": Scorer(2, _score_number, _is_number, _read_number),
    "choice": Scorer(1, _score_choice, _is_choice, _read_choice),
    "f1": Scorer(2, _score_f1, _says_something, _read_text, Score(strict=False, lenient=False, f1=0.0)),
    "recorded": Scorer(1, _score_recorded, _says_something, _read_anything),
}
