# SPDX-License-Identifier: Apache-2.0
"""Names written in the schema: classes, levels, groups and variables."""

from __future__ import annotations

from collections.abc import Callable

from persam_monai.clinical.cells import is_missing, shown

_MINIMUM_NAMES = 2  # of classes and levels: with one there is nothing to tell apart


def quotable(value: object) -> str:
    """What probably stands in a file where YAML read this value: a truth value is mostly a yes or a no."""
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)


def name_fault(value: object, written: str | None = None) -> str | None:
    """What is wrong with a name, or None. Whole numbers pass: they are the same text unquoted.

    Args:
        value: as YAML delivered it.
        written: as it stands in the file; None if that is not known.
    """
    if isinstance(value, bool):
        return (
            f"found {str(value).lower()}, because YAML reads yes, no, on, off, true and false without quotes as truth "
            f'values; quote it, such as "{written or quotable(value)}".'
        )
    if isinstance(value, int):
        return None
    if value is None:
        return "found nothing; expected a name (YAML reads null and ~ without quotes as nothing)."
    if not isinstance(value, str):
        return f'found {shown(value)}, which YAML does not read as text; quote it, such as "{value}".'
    if is_missing(value):
        return f"found {shown(value)}, which stands for a missing value in the table; choose another name."
    if value != value.strip():
        return f"found {shown(value)}; remove the spaces around it."
    return None


def parse_names(
    value: object,
    what: str,
    report: Callable[[str], None],
    exactly: int | None = None,
    case_matters: bool = True,
) -> tuple[str, ...]:
    """A list of at least two different names.

    Args:
        value: as YAML or JSON delivered it.
        what: "class" or "level", for messages.
        report: takes each fault.
        exactly: how many there must be; None for any number from two.
        case_matters: whether two of them may differ in case alone.

    Returns:
        The names that are sound, in order.
    """
    if not isinstance(value, list | tuple):
        report(f"found {shown(value)}; expected a list, such as [first, second].")
        return ()
    names: list[str] = []
    for item in value:
        fault = name_fault(item)
        if fault is None and str(item) in names:
            fault = f'the {what} "{item}" stands twice; remove one.'
        twin = next((name for name in names if name.casefold() == str(item).casefold()), None)
        if fault is None and twin is not None and not case_matters:
            cure = "keep one spelling, or rename one of them"
            fault = f'the {what} names "{twin}" and "{item}" differ in case alone: one {what}? If so, {cure}.'
        if fault is None:
            names.append(str(item))
        else:
            report(fault)
    if exactly is not None and len(value) != exactly:
        report(f"found {len(value)}; expected exactly {exactly} names.")
    elif len(value) < _MINIMUM_NAMES:
        report(f"found {len(value)}; expected at least {_MINIMUM_NAMES} names.")
    return tuple(names)
