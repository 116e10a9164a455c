"""Brings texts into the one form in which they are compared, by selections, trajectory signatures and the agent's search.

Two texts that a reader takes for the same are equal here: case, width, composition, ligatures, soft hyphens and invisible
characters do not tell them apart (NFKC and full case folding, by the Unicode of this Python). Letters of other scripts that
merely look alike do, and so do accents.

A word is a run of letters, numbers and their marks. In scripts that write no spaces between words each character is one, so
that texts in them have n-grams, too; three or four of these hold about as much as one word elsewhere.
"""

import html
import re
import unicodedata
from collections.abc import Callable

import polars as pl

COMPARABLE_VERSION = f"1 unicode {unicodedata.unidata_version}"
"""Changes when a text gets another form: whatever was compared before is compared anew. Pythons differ in their Unicode."""
INVISIBLE = r"\p{Default_Ignorable_Code_Point}"
"""Soft hyphens, zero-width spaces and joiners, marks of direction, variation selectors, tags."""
UNSPACED = (
    r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Bopomofo}\p{Yi}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tai_Le}\p{New_Tai_Lue}"
    r"\p{Tai_Tham}\p{Tai_Viet}\p{Javanese}\p{Balinese}\x{30FC}]"
)
"""The prolonged sound mark U+30FC belongs to two scripts, so it is in neither of their classes."""
WORD = rf"{UNSPACED}\p{{M}}*|[[\p{{L}}\p{{N}}\p{{M}}]--{UNSPACED}]+"
FILLERS = "[\u115f\u1160\u3164\uffa0]"
"""Hangul fillers: default-ignorable by name, and drawn as a space."""
ENTITY = r"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,30});|%20"
JSON_ESCAPE = re.compile(r"\\+u([0-9a-fA-F]{4})")


def extract_words(texts: pl.Series) -> pl.Series:
    """The words of each text in their comparable form, in order: a list of strings, null where the text is null."""
    return _fold(_decode_escapes(texts)).str.extract_all(WORD)


def join_words(texts: pl.Series) -> pl.Series:
    """The words of each text in their comparable form, a space between any two."""
    return extract_words(texts).list.join(" ")


def separate_words(texts: pl.Series) -> pl.Series:
    """Texts of which trajtok takes the comparable words: it splits and lowercases ASCII just so, which therefore stays."""
    is_plain = _is_ascii(texts) & ~_has_escapes(texts) & ~texts.str.contains(ENTITY)
    places = (~is_plain).fill_null(value=False).arg_true()
    return texts.clone().scatter(places, join_words(texts.gather(places))) if len(places) else texts


def read_json_texts(conversations: pl.Series) -> pl.Series:
    """The texts of conversations in canonical JSON, for matching by words: escapes become spaces, so no word grows by them."""
    return _decode_escapes(conversations).str.replace_all(r"\\(?:u[0-9a-f]{4}|.)", " ")


def _decode_escapes(texts: pl.Series) -> pl.Series:
    r"""Texts with JSON's `\u4e2d` as the character: a tool's result is often JSON in ASCII, inside of a string."""
    texts = _change(texts, texts.str.contains(ENTITY), _decode_entities)
    return _change(texts, _has_escapes(texts), _decode)


def _has_escapes(texts: pl.Series) -> pl.Series:
    return texts.str.contains(r"\u", literal=True)


def _is_ascii(texts: pl.Series) -> pl.Series:
    return texts.str.len_bytes() == texts.str.len_chars()


def _decode_entities(text: str) -> str:
    """What a web page's source or address writes for a character: `&nbsp;`, `&#233;`, `%20`."""
    return html.unescape(text.replace("%20", " "))


def _decode(text: str) -> str:
    units = JSON_ESCAPE.sub(lambda escape: chr(int(escape[1], 16)), text)
    return units.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _fold(texts: pl.Series) -> pl.Series:
    return _change(
        texts.str.replace_all(FILLERS, " ").str.replace_all(INVISIBLE, ""), ~_is_ascii(texts), _fold_text
    ).str.to_lowercase()


def _fold_text(text: str) -> str:
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


def _change(texts: pl.Series, is_changed: pl.Series, change: Callable[[str], str]) -> pl.Series:
    """The texts with `change` done to some: most texts need none, and it is Python's."""
    places = is_changed.fill_null(value=False).arg_true()
    if not len(places):
        return texts
    return texts.clone().scatter(places, pl.Series([change(text) for text in texts.gather(places)], dtype=pl.String))
