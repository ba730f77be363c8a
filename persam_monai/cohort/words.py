# SPDX-License-Identifier: Apache-2.0
"""Numbers of things in sentences."""

from __future__ import annotations


def counted(number: int, thing: str) -> str:
    """A number and what it counts, in the singular where it is one.

    Example:
        >>> [counted(number, "patient") for number in (0, 1, 2)]
        ['0 patients', '1 patient', '2 patients']
    """
    return f"{number} {thing}{'' if number == 1 else 's'}"
