"""Text comparison as the official metrics do it: the one normalisation of the whole package.

Order of the steps (MuSiQue v1.0, HotpotQA v1): lower-case; delete ASCII punctuation, inserting no
space; replace the words a, an, the by a space; collapse white space.
"""

import re
import string
from collections.abc import Set as AbstractSet
from functools import lru_cache

NOTHING_FOUND = "Nothing was found."
"""What a tool returns of a search that finds nothing: templates write it, and rewards read it as no document."""
_FEWEST = 8  # words; shorter texts have too little to be called alike
_TOKEN = re.compile(r"(?u)\b\w\w+\b")  # scikit-learn's default, the one that the reference code's TF-IDF uses
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_PUNCTUATIONS = re.compile(f"[{re.escape(string.punctuation)}]+")
_ARTICLE_WORDS = {"a", "an", "the"}
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_SEAM = "\ue000"  # stands for punctuation with a space at it; a character for private use
_SEAMS = re.compile(f" ?[{re.escape(string.punctuation)}][ {re.escape(string.punctuation)}]*")
_LONE_ARTICLES = re.compile(r"(?<!\S)(?:a|an|the)(?!\S)")
# For ASCII bytes: characters that are neither alphanumeric nor deleted separate words.
_PARTED = bytes(code if chr(code).isalnum() else 0x20 for code in range(0x80)).ljust(0x100, b" ")
_DELETED = string.punctuation.encode()
_IGNORED = {*_ARTICLE_WORDS, *string.ascii_lowercase, *string.digits}


def normalise(text: str) -> str:
    """Normalise an answer as the official scripts do."""
    plain = without_punctuation(text.lower())
    if plain.isascii() and plain.isprintable():  # letters, digits and spaces, so articles are words between spaces
        return " ".join([word for word in plain.split() if word not in _ARTICLE_WORDS])
    return " ".join(_ARTICLES.sub(" ", plain).split())


def joined_lines(text: str) -> str:
    """Return a text as one line with single spaces."""
    return " ".join(text.split())


def without_punctuation(text: str) -> str:
    """Remove ASCII punctuation, and put nothing in its place."""
    return text.translate(_PUNCTUATION) if text.isascii() else _PUNCTUATIONS.sub("", text)  # each is the faster one


@lru_cache(maxsize=8192)
def _normalised(text: str) -> str:
    return normalise(text)


def contains(text: str, answer: str) -> bool:
    """Tell whether the normalised answer occurs in the normalised text as a run of whole tokens.

    Here and in `mentions`, spaces at punctuation do not count: 2Wiki writes `Schleswig- Holstein` and `D. C.`.
    """
    needle = _normalised(answer)
    return bool(needle) and (f" {needle} " in f" {_normalised(text)} " or _spaced_otherwise(text, answer))


def mentions(text: str, answer: str) -> bool:
    """Tell whether the normalised answer occurs anywhere in the normalised text, inside words too."""
    needle = _normalised(answer)
    return bool(needle) and (needle in _normalised(text) or _spaced_otherwise(text, answer))


def _spaced_otherwise(text: str, answer: str) -> bool:
    """Tell whether an answer with punctuation occurs as whole words, whatever the spaces at punctuation.

    A match may end at punctuation, so the text keeps a mark where there is some with a space.
    """
    needle = _joined(answer)
    if not needle:
        return False
    marked = _marked(text)
    if needle not in marked.replace(_SEAM, ""):
        return False
    letters = f"{_SEAM}?".join(map(re.escape, needle))
    return bool(re.search(f"(?<![^ {_SEAM}]){letters}(?![^ {_SEAM}])", marked))


@lru_cache(maxsize=8192)
def _joined(answer: str) -> str:
    """Return a normalised answer without spaces at punctuation; empty where it has no punctuation."""
    return _marked(answer).replace(_SEAM, "") if _PUNCTUATIONS.search(answer) else ""


@lru_cache(maxsize=8192)
def _marked(text: str) -> str:
    """Normalise a text, but put a mark in place of punctuation that has a space at it."""
    plain = " ".join(text.lower().split())
    marked = _SEAMS.sub(lambda found: _SEAM if " " in found[0] else "", plain)
    return " ".join(_LONE_ARTICLES.sub(" ", marked).split())


def facts(answer: str) -> list[str]:
    """Split an answer into its facts: a hop that collects several joins them with `; `."""
    return answer.split("; ")


def tokens(text: str) -> list[str]:
    """Return the lower-case words of two characters or more: what BM25 and TF-IDF see of a text."""
    return _TOKEN.findall(text.lower())


def containment(one: AbstractSet[str], other: AbstractSet[str]) -> float:
    """Return the share of the shorter text's words that the other one holds too; 0 for fewer than eight words."""
    fewer = min(len(one), len(other))
    return len(one & other) / fewer if fewer >= _FEWEST else 0.0


@lru_cache(maxsize=256)
def tfidf_words(text: str) -> list[str]:
    """Return `tokens(normalise(text))`, in one pass and, for ASCII, without a regular expression."""
    if text.isascii():
        words = text.lower().encode().translate(_PARTED, _DELETED).decode().split()
    else:
        words = tokens(without_punctuation(text.lower()))
    return [word for word in words if word not in _IGNORED]
