# SPDX-License-Identifier: Apache-2.0
"""Names written in the schema: classes, levels, groups and variables."""

from __future__ import annotations

from collections.abc import Callable

from persam_monai.clinical.cells import is_missing, shown

_MINIMUM_NAMES = 2  # of classes and levels: with one there is nothing to tell apart


def name_fault(value: object) -> str | None:
    """What is wrong with a name as YAML delivered it, or None. Whole numbers pass: they are the same text unquoted."""
    if isinstance(value, bool):
        return (
            f"found {str(value).lower()}, because YAML reads yes, no, on, off, true and false without quotes as truth "
            'values; quote it, such as "yes".'
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


def parse_names(value: object, what: str, report: Callable[[str], None], exactly: int | None = None) -> tuple[str, ...]:
    """A list of at least two different names.

    Args:
        value: as YAML or JSON delivered it.
        what: "class" or "level", for messages.
        report: takes each fault.
        exactly: how many there must be; None for any number from two.

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
        if fault is None:
            names.append(str(item))
        else:
            report(fault)
    if exactly is not None and len(value) != exactly:
        report(f"found {len(value)}; expected exactly {exactly} names.")
    elif len(value) < _MINIMUM_NAMES:
        report(f"found {len(value)}; expected at least {_MINIMUM_NAMES} names.")
    return tuple(names)
