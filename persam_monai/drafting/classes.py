# SPDX-License-Identifier: Apache-2.0
"""Labels that are written in several ways."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

_DASHES = str.maketrans(dict.fromkeys("–—−", "-"))
# Between words all of these are one space: HER2-low, HER2 low, HER2 - low. A dash before a digit or behind a word is a
# sign instead.
_SEPARATOR = re.compile(r"[\s/_]|-(?=[^\W\d_])|(?<=\s)-(?=\s+[^\W\d_])")
# All but the signs that tell classes apart: HER2+ and HER2-, -1 and 1, 1.5 and 15, <5 and >5, ~A and A.
_IDLE = re.compile(r"(?![-+<>=≤≥~!¬ ])(?![.,](?=\d))[\W_]")
_OUTSIDE = re.compile(r"(?<![^\W_]) | (?![^\W_])")  # a space that does not stand between words
_MINIMUM_CLASSES = 2


@dataclass(frozen=True)
class Spellings:
    """One spelling for each class.

    Args:
        chosen: for every label of the table, the commonest one that differs from it in case, spaces or punctuation
            alone, or itself.
        notes: what a person has to correct.
    """

    chosen: dict[str, str] = field(repr=False)
    notes: tuple[str, ...]


def one_spelling(labels: Counter[str]) -> Spellings:
    """Put together the labels that differ in case, spaces or punctuation alone.

    If a single class would be left, only those that differ in case alone are put together, which a schema refuses as
    two classes.

    Args:
        labels: with their number of rows.

    Example:
        >>> one_spelling(Counter({"FL": 9, "fl": 2, "DLBCL": 7})).chosen
        {'FL': 'FL', 'DLBCL': 'DLBCL', 'fl': 'FL'}
    """
    chosen, by_case = _commonest(labels, _words_and_signs), _commonest(labels, str.casefold)
    others: dict[str, list[str]] = {}
    for label, common in chosen.items():
        if common != label:
            others.setdefault(common, []).append(label)
    apart = len(set(chosen.values())) < _MINIMUM_CLASSES <= len(set(by_case.values()))
    notes = tuple(_note(label, different, labels, apart) for label, different in others.items())
    return Spellings(by_case if apart else chosen, notes)


def _commonest(labels: Counter[str], essence: Callable[[str], str]) -> dict[str, str]:
    """For every label, the commonest of those with the same essence."""
    kept: dict[str, str] = {}
    ordered = sorted(labels, key=lambda label: (-labels[label], label))
    return {label: kept.setdefault(essence(label), label) for label in ordered}


def _words_and_signs(label: str) -> str:
    """Equal for labels that differ in case, spaces or punctuation alone."""
    spaced = _SEPARATOR.sub(" ", label.casefold().translate(_DASHES))
    return _OUTSIDE.sub("", re.sub(" +", " ", _IDLE.sub("", spaced))) or label


def _note(label: str, others: list[str], labels: Counter[str], apart: bool) -> str:
    """What to do about the rarer spellings of a class.

    Args:
        label: the commonest.
        others: the rarer ones.
        labels: with their number of rows.
        apart: whether those that differ in more than case were left apart.
    """
    case_alone = all(other.casefold() == label.casefold() for other in others)
    spelled = ", ".join(f"{other} (rows: {labels[other]})" for other in others)
    what = "case" if case_alone else "case, spaces or punctuation"
    cure = "give them names that differ in more" if case_alone else "add them to classes"
    cure = "leave the classes as they are: put together they would be a single one" if apart else cure
    return (
        f"{label} and {', '.join(others)} differ in {what} alone: one class? Then write {label} in the rows with "
        f"{spelled}; if not, {cure}."
    )
