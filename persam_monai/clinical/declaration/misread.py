# SPDX-License-Identifier: Apache-2.0
"""Numbers that YAML 1.1 reads otherwise than a person does: 010 is eight to it, and 1:30 ninety."""

from __future__ import annotations

import re
from collections.abc import Iterator

import yaml

_AS_READ = re.compile(r"[+-]?(?:0|[1-9][0-9_]*)|[^:]*\.[^:]*")
_NAMES = ("classes", "levels", "missing_codes")  # here a number is a text of the table, written as it stands there
_DEPTH = 8  # deeper than any schema; ends the walk of a file that refers to itself


def misread_numbers(node: yaml.Node | None, key: str = "", depth: int = 0) -> Iterator[str]:
    """A message for each number that YAML takes for another one.

    Args:
        node: of the document, before YAML made values of it.
        key: under which it stands.
        depth: how many nodes are above it.
    """
    if depth > _DEPTH:
        return
    if isinstance(node, yaml.MappingNode):
        for name, value in node.value:
            yield from misread_numbers(value, name.value if isinstance(name, yaml.ScalarNode) else "", depth + 1)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            yield from misread_numbers(value, key, depth + 1)
    elif isinstance(node, yaml.ScalarNode) and node.tag.endswith((":int", ":float")):
        text = node.value
        sound = _AS_READ.fullmatch(text) or text.lower().lstrip("+-") in (".inf", ".nan")
        named = key in _NAMES[:2] and node.tag.endswith(":int") and not re.fullmatch("-?(?:0|[1-9][0-9]*)", text)
        if not sound or named:
            cure = f'put it in quotes ("{text}")' if key in _NAMES else "write it with plain decimal digits"
            yield f"line {node.start_mark.line + 1}, {key}: found {text}, which YAML takes for another number; {cure}."
