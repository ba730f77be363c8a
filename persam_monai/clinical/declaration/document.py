# SPDX-License-Identifier: Apache-2.0
"""A YAML file with the line of every key, so that messages can name it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from persam_monai.clinical.declaration.misread import misread_numbers
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
        written: the last key of each path as it stands in the file, where YAML reads another one: no, which is False.
        faults: what is wrong with single values of the file.
    """

    data: object
    source: str
    lines: dict[KeyPath, int] = field(default_factory=dict)
    written: dict[KeyPath, str] = field(default_factory=dict)
    faults: tuple[str, ...] = ()

    def place(self, path: KeyPath) -> str:
        """A key path as messages show it: ``line 7, groups.blood.ldh.range``."""
        known = next((path[:end] for end in range(len(path), 0, -1) if path[:end] in self.lines), None)
        line = f"line {self.lines[known]}, " if known else ""
        return line + ".".join(self.written.get(path[: end + 1], key) for end, key in enumerate(path))


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
        keys = list(_keys(loader, root)) if root is not None else []
        data = loader.construct_document(root) if root is not None else None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: an impossible date, which YAML makes without quotes
        raise UserError(f"{path}: {what} is not valid YAML: {_described(error)}") from error
    lines = {path: node.start_mark.line + 1 for path, node in reversed(keys)}
    written = {path: node.value for path, node in keys if node.value != path[-1]}
    document = Document(data, str(path), lines, written, tuple(misread_numbers(root)))
    raise_together(f"{path}: {what} has keys that stand twice", list(_repeated(keys, document)))
    return document


def _keys(loader: yaml.SafeLoader, node: yaml.Node, path: KeyPath = ()) -> Iterator[tuple[KeyPath, yaml.ScalarNode]]:
    """Every key path of nested mappings, as YAML reads it, with the node of its last key."""
    if not isinstance(node, yaml.MappingNode) or len(path) >= _DEPTH:
        return
    for key, value in node.value:
        if isinstance(key, yaml.ScalarNode):
            typed = key.tag.endswith((":bool", ":int", ":float", ":null", ":timestamp"))
            here = (*path, str(loader.construct_object(key)) if typed else key.value)
            yield here, key
            yield from _keys(loader, value, here)


def _repeated(keys: list[tuple[KeyPath, yaml.ScalarNode]], document: Document) -> Iterator[str]:
    """A message for each key met before, but for those below one; YAML readers would keep the last silently."""
    met: set[KeyPath] = set()
    twice: set[KeyPath] = set()
    for path, node in keys:
        if path in met and not any(path[:end] in twice for end in range(1, len(path))):
            place = ".".join(
                (*(document.written.get(path[:end], path[end - 1]) for end in range(1, len(path))), node.value)
            )
            line = node.start_mark.line + 1
            yield f"line {line}, {place}: stands in line {document.lines[path]} already; rename or remove one."
            twice.add(path)
        met.add(path)


def _described(error: Exception) -> str:
    """A YAML error in one line, with its place and the commonest cure."""
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        return f"{error}."
    problem = getattr(error, "problem", None) or "it cannot be parsed"
    hint = ' Quote text that holds or begins with a special character, such as unit: "%".'
    return f"line {mark.line + 1}, column {mark.column + 1}: {problem}.{hint}"
