# SPDX-License-Identifier: Apache-2.0
"""A draft as YAML, with comments for the person who corrects it."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import yaml

_WIDTH = 120
_INDENT = "    "  # of a variable
_ELSEWHERE_TRUTH = ("y", "n")  # plain text to PyYAML, truth values to other readers
_PLAIN = re.compile(r"[^\W\d_][\w +/().-]*", re.ASCII)


def scalar(value: object) -> str:
    """A number, truth value or text as YAML; text in quotes wherever a reader might take it for something else.

    Example:
        >>> scalar("U/L"), scalar("no"), scalar("1"), scalar(0.25), scalar(1e-7)
        ('U/L', '"no"', '"1"', '0.25', '0.0000001')
    """
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return np.format_float_positional(value, trim="-")  # YAML takes 1e-07 for a text
    text = str(value)
    if _PLAIN.fullmatch(text) and text.lower() not in _ELSEWHERE_TRUTH and not text.endswith(" "):
        try:
            if yaml.safe_load(f"[{text}]") == [text]:
                return text
        except (ValueError, yaml.YAMLError):
            pass
    return json.dumps(text, ensure_ascii=not text.isprintable())


def flow(value: object) -> str:
    """A mapping, list or scalar on one line."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{scalar(key)}: {flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(flow, value)) + "]"
    return scalar(value)


def comment(text: str, indent: str = "") -> list[str]:
    """Lines of a comment, wrapped."""
    text = "".join(character if character.isprintable() else " " for character in text)  # YAML admits no others here
    start = f"{indent}# "
    return textwrap.wrap(
        " ".join(text.split()), _WIDTH, initial_indent=start, subsequent_indent=start, break_on_hyphens=False
    )


def variable(name: str, declaration: Mapping[str, Any], notes: Sequence[str]) -> list[str]:
    """A variable with its comments above it."""
    return [*comment(" ".join(notes), _INDENT), f"{_INDENT}{scalar(name)}: {flow(declaration)}"]


def set_aside(name: str, declaration: Mapping[str, Any], notes: Iterable[str]) -> list[str]:
    """A variable that the schema does not have yet: a comment, from which the last line can be taken in."""
    above = comment(f"{name}: {' '.join(notes)}", _INDENT)
    return [*above, f"{_INDENT}# {scalar(name)}: {flow(declaration)}"] if declaration else above
