# SPDX-License-Identifier: Apache-2.0
"""Labels that are written in several ways."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field

# Signs that tell classes apart: HER2+ and HER2-, 1.5 and 15, <5 and >5.
_IDLE = re.compile(r"(?![+<>=≤≥])(?![-–](?!\w))(?![.,](?=\d))[\W_]")


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

    Args:
        labels: with their number of rows.

    Example:
        >>> one_spelling(Counter({"FL": 9, "fl": 2, "DLBCL": 7})).chosen
        {'FL': 'FL', 'DLBCL': 'DLBCL', 'fl': 'FL'}
    """
    kept: dict[str, str] = {}
    chosen: dict[str, str] = {}
    others: dict[str, list[str]] = {}
    for label, _ in sorted(labels.items(), key=lambda item: (-item[1], item[0])):
        chosen[label] = kept.setdefault(_IDLE.sub("", label.casefold()) or label, label)
        if chosen[label] != label:
            others.setdefault(chosen[label], []).append(label)
    return Spellings(chosen, tuple(_note(label, different, labels) for label, different in others.items()))


def _note(label: str, others: list[str], labels: Counter[str]) -> str:
    """What to do about the rarer spellings of a class."""
    case_alone = all(other.casefold() == label.casefold() for other in others)
    spelled = ", ".join(f"{other} (rows: {labels[other]})" for other in others)
    what = "case" if case_alone else "case, spaces or punctuation"
    cure = "give them names that differ in more" if case_alone else "add them to classes"
    return (
        f"{label} and {', '.join(others)} differ in {what} alone: one class? Then write {label} in the rows with "
        f"{spelled}; if not, {cure}."
    )
