# SPDX-License-Identifier: Apache-2.0
"""What may be declared for one variable or for all: missing codes, decimal sign and thousands sign."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from persam_monai.clinical.cells import shown
from persam_monai.clinical.names import quotable
from persam_monai.clinical.numbers import DECIMALS, THOUSANDS

Fault = Callable[[str], None]
"""Takes what is wrong with one key."""


def parse_codes(declaration: Mapping[str, Any], report: Fault) -> tuple[str | float, ...]:
    """The sound ones of a declaration's ``missing_codes``; numbers as floats."""
    value = declaration.get("missing_codes", ())
    if not isinstance(value, list | tuple):
        report(f"found {shown(value)}; expected a list of numbers or texts, such as [-9, 999].")
        return ()
    codes: list[str | float] = []
    for item in value:
        if isinstance(item, str):
            codes.append(item)
        elif isinstance(item, bool) or not isinstance(item, int | float):
            cure = f'quote it, such as "{quotable(item)}"'
            report(f"found {_yaml(item)}, which YAML reads as neither number nor text; {cure}.")
        elif not _finite(item):
            report(f"found {shown(item)}; expected finite numbers or texts, such as [-9, 999].")
        else:
            codes.append(float(item))
    return tuple(codes)


def parse_sign(declaration: Mapping[str, Any], key: str, report: Fault) -> str | None:
    """A declaration's ``decimal`` or ``thousands``; None if it is not there or not sound."""
    value, known = declaration.get(key), DECIMALS if key == "decimal" else THOUSANDS
    if value is None and key not in declaration:
        return None
    if not isinstance(value, str) or value not in known:
        report(f"found {_yaml(value)}; expected {' or '.join(_quoted(sign) for sign in known)}, in quotes.")
        return None
    return value


def _finite(value: float) -> bool:
    try:
        return math.isfinite(float(value))
    except OverflowError:  # an int of more than 308 digits
        return False


def _quoted(sign: str) -> str:
    return f'"{sign}"'


def _yaml(value: object) -> str:
    """A value as it would stand in the file."""
    return str(value).lower() if isinstance(value, bool) else shown(value)
