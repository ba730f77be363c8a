# SPDX-License-Identifier: Apache-2.0
"""Levels whose order is evident: stages, grades, low to high, staining."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

_SEVERITY = {
    0: ("none", "no", "absent", "negative", "keine"),
    10: ("very low", "minimal", "sehr niedrig"),
    20: ("low", "mild", "weak", "slight", "niedrig", "gering", "leicht", "schwach"),
    25: ("low intermediate", "intermediate low"),
    30: ("medium", "moderate", "intermediate", "middle", "mittel", "mäßig"),
    35: ("high intermediate", "intermediate high"),
    40: ("high", "severe", "strong", "hoch", "schwer", "stark"),
    50: ("very high", "very severe", "sehr hoch"),
}
_FREQUENCY = {
    0: ("never", "nie"),
    10: ("rarely", "selten"),
    20: ("sometimes", "manchmal"),
    30: ("often", "oft", "häufig"),
    40: ("always", "immer"),
}
_STAINING = {
    0: ("-", "–", "neg", "negative", "0"),
    5: ("(+)", "+/-"),
    10: ("+", "1+"),
    20: ("++", "2+"),
    30: ("+++", "3+"),
    40: ("++++", "4+"),
}
_SCALES: tuple[Mapping[str, int], ...] = tuple(
    {word: rank for rank, words in scale.items() for word in words} for scale in (_SEVERITY, _FREQUENCY, _STAINING)
)
_ROMAN = ("0", "I", "II", "III", "IV", "V")
_NUMBERED = re.compile(
    r"(?P<prefix>(?:stage|grade|grad|stadium|stadium |who|who grade|ann arbor|ecog|level|class|[cpy]?[tnm]|g|r)?[ _-]?)"
    r"(?P<number>III|IV|II|I|V|[0-5])(?P<part>[ .]?[a-d])?",
    re.IGNORECASE,
)
_MINIMUM_LEVELS = 3  # with two there is one order and its reverse, which binary has

# What a level of two may be called that means "no".
_NEGATIVE = frozenset(
    {"no", "n", "false", "0", "nein", "non", "negative", "neg", "neg.", "negativ", "absent", "normal", "-", "–", "none"}
    | {"low", "wt", "wildtype", "wild-type", "without", "ohne", "never", "nie", "not detected", "benign"}
)


def in_order(levels: Sequence[str]) -> list[str] | None:
    """The levels, lowest first, with those that nobody has in between; None if no order is evident."""
    if len(levels) < _MINIMUM_LEVELS:
        return None
    words = [re.sub(r"[\s_-]+", " ", level.casefold()) if len(level) > 1 else level for level in levels]
    for scale in _SCALES:
        ranks = [scale.get(level.casefold(), scale.get(word)) for level, word in zip(levels, words, strict=True)]
        known = [rank for rank in ranks if rank is not None]
        if len(known) == len(set(known)) == len(levels):
            return [level for _, level in sorted(zip(known, levels, strict=True))]
    return _numbered(levels)


def no_then_yes(levels: Sequence[str]) -> list[str]:
    """Two levels, the one that sounds like "no" first; else as they come."""
    return sorted(levels, key=lambda level: level.casefold() not in _NEGATIVE)


def _numbered(levels: Sequence[str]) -> list[str] | None:
    """Levels such as I, II, III or T1a, T1b, T2."""
    matches = [match for match in map(_NUMBERED.fullmatch, levels) if match is not None]
    if len(matches) < len(levels) or len({match["prefix"].casefold() for match in matches}) > 1:
        return None
    romans = [match["number"].upper() in _ROMAN[1:] for match in matches]
    numbers = [_ROMAN.index(n.upper()) if n.upper() in _ROMAN else int(n) for n in (m["number"] for m in matches)]
    parts = [match["part"] for match in matches]
    if not (all(roman or number == 0 for roman, number in zip(romans, numbers, strict=True)) or not any(romans)):
        return None  # I and 2 in one column
    if any(parts) or len({match["prefix"] for match in matches}) > 1:
        ranks = [(number, (part or "").casefold()) for number, part in zip(numbers, parts, strict=True)]
        return [level for _, level in sorted(zip(ranks, levels, strict=True))]
    by_number = dict(zip(numbers, levels, strict=True))
    prefix = matches[0]["prefix"]
    spelling = _ROMAN if any(romans) else tuple(map(str, range(6)))
    return [by_number.get(n, prefix + spelling[n]) for n in range(min(numbers), max(numbers) + 1)]
