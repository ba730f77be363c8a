# SPDX-License-Identifier: Apache-2.0
"""Numbers that YAML 1.1 reads otherwise than a person does: 010 is eight to it, and 1:30 ninety."""

from __future__ import annotations

import re
from collections.abc import Iterator

import yaml

_AS_READ = re.compile(r"[+-]?(?:0|[1-9][0-9_]*)|[^:]*\.[^:]*")
_PLAIN_INTEGER = re.compile("-?(?:0|[1-9][0-9]*)")  # which is written anew as it stands
_NAMES = ("classes", "levels", "missing_codes")  # here a number is a text of the table, written as it stands there
_DEPTH = 8  # deeper than any schema; ends the walk of a file that refers to itself


def misread_numbers(node: yaml.Node | None, path: tuple[str, ...] = (), depth: int = 0) -> Iterator[str]:
    """A message for each number, and each name of digits, that YAML takes for another number.

    Args:
        node: of the document, before YAML made values of it.
        path: the keys under which it stands.
        depth: how many nodes are above it.
    """
    if depth > _DEPTH:
        return
    if isinstance(node, yaml.MappingNode):
        for name, value in node.value:
            here = (*path, name.value if isinstance(name, yaml.ScalarNode) else "")
            if _is_number(name) and not _PLAIN_INTEGER.fullmatch(name.value):
                fault = f"found the name {name.value}, which YAML takes for another number"
                place = f"line {name.start_mark.line + 1}, {'.'.join(here)}"
                yield f'{place}: {fault}; put it in quotes ("{name.value}").'
            yield from misread_numbers(value, here, depth + 1)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            yield from misread_numbers(value, path, depth + 1)
    elif node is not None and _is_number(node):
        text, key = node.value, path[-1] if path else ""
        sound = _AS_READ.fullmatch(text) or text.lower().lstrip("+-") in (".inf", ".nan")
        named = key in _NAMES[:2] and node.tag.endswith(":int") and not _PLAIN_INTEGER.fullmatch(text)
        if not sound or named:
            cure = f'put it in quotes ("{text}")' if key in _NAMES else "write it with plain decimal digits"
            yield f"line {node.start_mark.line + 1}, {key}: found {text}, which YAML takes for another number; {cure}."


def _is_number(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.tag.endswith((":int", ":float"))
