# SPDX-License-Identifier: Apache-2.0
"""Number formats of Excel that show a person something else than the number that is stored."""

from __future__ import annotations

import re
from typing import Any

from persam_monai.cohort.tables.table import CellFault

# Number formats (ECMA-376 part 1, 18.8.31): conditions and colours, padding, text that is shown as it is, and commas
# behind the digits, each of which divides by 1000.
_UNSEEN = re.compile(r"\[[^\]]*\]|[_*].")
_QUOTED = re.compile(r'"([^"]*)"|\\(.)')
_THOUSANDTHS = re.compile(r"[0#?],+(?![0#?,])")
_OWN_SIGN = re.compile(r'[0#?](?:\\[.,]|"[.,]")[0#?]')  # a point between digits that is only written there
_SECTION = re.compile(r'(?:"[^"]*"|\\.|[^;"\\])*')
_CONDITION = re.compile(r"\[[<>=]")
_SHOWS = re.compile(r"[0#?@]|General", re.IGNORECASE)


def sections(form: str, value: Any) -> list[str]:
    """Those parts of a number format that may show a value: for numbers above, below and at 0, or by conditions."""
    parts = [match.group() for match in _SECTION.finditer(form)]
    # A part is followed by an empty match at its semicolon; an empty match behind another is an empty part.
    parts = [part for part, before in zip(parts, ["", *parts], strict=False) if part or not before]
    if _CONDITION.search(form) or len(parts) == 1:
        return parts
    if value < 0 or (value == 0 and len(parts) > 2):
        return [parts[1 if value < 0 else 2]]
    return parts[:1]


def format_fault(section: str, value: Any) -> CellFault | None:
    """What is wrong with reading a number that one part of a format shows."""
    seen = _UNSEEN.sub("", section)
    digits = _QUOTED.sub("", seen)
    if "%" in digits:
        cure = "a plain number: as a percentage Excel shows 100 times what it stores; format the column as numbers."
        return CellFault(f"{value * 100:.10g}%", cure)
    text = "".join(quoted + escaped for quoted, escaped in _QUOTED.findall(seen)).strip()
    odd = any(sign.isalnum() or sign in "<>≤≥/^" for sign in text) or not _SHOWS.search(digits)
    if odd or _THOUSANDTHS.search(digits) or _OWN_SIGN.search(seen):
        cure = (
            "a plain number or text: the cell's format makes Excel show more than it stores; format the column as "
            "numbers, or as text and type the cells again."
        )
        return CellFault(f"{value:.10g} in the format {section}", cure)
    return None
