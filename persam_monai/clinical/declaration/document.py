# SPDX-License-Identifier: Apache-2.0
"""A YAML file with the line of every key, so that messages can name it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from persam_monai.errors import UserError, raise_together

KeyPath = tuple[str, ...]
_DEPTH = 5  # groups, group, variable, key, and one more; also ends the walk of a file that refers to itself


@dataclass(frozen=True)
class Document:
    """What a file holds.

    Args:
        data: mappings, lists and scalars.
        source: the file, for messages.
        lines: line (from 1) of each key path; may be empty, when the data did not come from a file.
    """

    data: object
    source: str
    lines: dict[KeyPath, int] = field(default_factory=dict)

    def place(self, path: KeyPath) -> str:
        """A key path as messages show it: ``line 7, groups.blood.ldh.range``."""
        known = next((path[:end] for end in range(len(path), 0, -1) if path[:end] in self.lines), None)
        line = f"line {self.lines[known]}, " if known else ""
        return line + ".".join(path)


def read_document(path: Path, what: str) -> Document:
    """Read a YAML file.

    Args:
        path: the file.
        what: what it is, such as "the clinical schema", for messages.

    Raises:
        UserError: if it is missing, unreadable, not UTF-8, not YAML, or has a key twice in one mapping.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; expected {what}.") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: {what} is not UTF-8 text; save it again with the encoding UTF-8.") from None
    except OSError as error:
        raise UserError(f"{path}: {what} cannot be read: {error.strerror}.") from error
    try:
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
        keys = list(_keys(root)) if root is not None else []
        data = loader.construct_document(root) if root is not None else None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: an impossible date, which YAML makes without quotes
        raise UserError(f"{path}: {what} is not valid YAML: {_described(error)}") from error
    document = Document(data, str(path), dict(keys))
    raise_together(f"{path}: {what} has keys that stand twice", list(_repeated(keys)))
    return document


def _keys(node: yaml.Node, path: KeyPath = ()) -> Iterator[tuple[KeyPath, int]]:
    """Every key path of nested mappings with its line."""
    if not isinstance(node, yaml.MappingNode) or len(path) >= _DEPTH:
        return
    for key, value in node.value:
        if isinstance(key, yaml.ScalarNode):
            here = (*path, key.value)
            yield here, key.start_mark.line + 1
            yield from _keys(value, here)


def _repeated(keys: list[tuple[KeyPath, int]]) -> Iterator[str]:
    """A message for each key path met before; YAML readers would keep the last silently."""
    first: dict[KeyPath, int] = {}
    for path, line in keys:
        if path in first:
            yield f"line {line}, {'.'.join(path)}: stands in line {first[path]} already; rename or remove one."
        first.setdefault(path, line)


def _described(error: Exception) -> str:
    """A YAML error in one line, with its place and the commonest cure."""
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        return f"{error}."
    problem = getattr(error, "problem", None) or "it cannot be parsed"
    hint = ' Quote text that holds or begins with a special character, such as unit: "%".'
    return f"line {mark.line + 1}, column {mark.column + 1}: {problem}.{hint}"
