# SPDX-License-Identifier: Apache-2.0
"""From the schema's mapping to its parts, with every fault in one report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from persam_monai.clinical.cells import shown
from persam_monai.clinical.declaration.document import Document, KeyPath
from persam_monai.clinical.declaration.hints import key_hint, kind_hint
from persam_monai.clinical.declaration.together import check_together
from persam_monai.clinical.names import name_fault, parse_names
from persam_monai.clinical.rules import CellRules
from persam_monai.clinical.variables.base import Variable
from persam_monai.clinical.variables.kinds import KINDS
from persam_monai.clinical.variables.options import parse_codes, parse_sign
from persam_monai.errors import raise_together

RESERVED_COLUMNS = ("patient_id", "slide", "label", "fold", "mpp")
"""Columns of the cohort table that are not clinical variables."""

_TOP_KEYS = ("classes", "groups", "missing_codes", "decimal", "thousands")

Groups = dict[str, tuple[Variable, ...]]


class SchemaParts(NamedTuple):
    """What a sound schema declares: classes, variables of each group, and what holds for all variables."""

    classes: tuple[str, ...]
    groups: Groups
    rules: CellRules


def parse_schema(document: Document) -> SchemaParts:
    """The parts of a schema document.

    Raises:
        UserError: with every fault, each with its line (where known), its key path and the cure.
    """
    parser = _Parser(document)
    parts = parser.parse()
    raise_together(f"{document.source}: the clinical schema needs correcting", parser.problems)
    return parts


class _Parser:
    """Walks one document and collects what is wrong with it."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.problems = list(document.faults)
        self.group_of: dict[str, str] = {}

    def report(self, path: KeyPath, text: str) -> None:
        self.problems.append(f"{self.document.place(path)}: {text}")

    def parse(self) -> SchemaParts:
        data = self.document.data
        if not isinstance(data, Mapping):
            self.problems.append(f"found {_what(data)}; expected a mapping with the keys classes and groups.")
            return SchemaParts((), {}, CellRules())
        for key in data:
            if key not in _TOP_KEYS:
                expected = "expected classes, groups and perhaps missing_codes, decimal and thousands"
                self.report((str(key),), f"unknown key; {expected}.{key_hint(str(key), _TOP_KEYS)}")
        classes, groups = self.classes(data), self.groups(data)
        rules = CellRules(
            parse_codes(data, lambda text: self.report(("missing_codes",), text)),
            parse_sign(data, "decimal", lambda text: self.report(("decimal",), text)),
            parse_sign(data, "thousands", lambda text: self.report(("thousands",), text)),
        )
        check_together(rules, groups, self.report)
        return SchemaParts(classes, groups, rules)

    def classes(self, data: Mapping[Any, Any]) -> tuple[str, ...]:
        if "classes" not in data:
            self.report(("classes",), "is missing; expected a list, such as classes: [DLBCL, FL, Reactive].")
            return ()
        return parse_names(data["classes"], "class", lambda text: self.report(("classes",), text), case_matters=False)

    def groups(self, data: Mapping[Any, Any]) -> Groups:
        if "groups" not in data:
            self.report(("groups",), "is missing; expected at least one group of variables.")
            return {}
        found = data["groups"]
        if not isinstance(found, Mapping) or not found:
            self.report(("groups",), f"found {_what(found)}; expected at least one named group of variables.")
            return {}
        return {str(name): self.group(name, variables) for name, variables in found.items()}

    def group(self, name: object, variables: object) -> tuple[Variable, ...]:
        path = ("groups", str(name))
        self.report_name(path, name)
        if not isinstance(variables, Mapping) or not variables:
            self.report(path, f"found {_what(variables)}; expected variables, such as age: {{kind: numeric}}.")
            return ()
        parsed = [self.variable((*path, str(key)), key, declaration) for key, declaration in variables.items()]
        return tuple(variable for variable in parsed if variable is not None)

    def variable(self, path: KeyPath, name: object, declaration: object) -> Variable | None:
        self.report_name(path, name)
        group = path[1]
        reserved = str(name).strip().lower()
        if reserved in RESERVED_COLUMNS:
            self.report(path, f"{reserved} is a column of its own in the cohort table; rename the variable.")
        if str(name) in self.group_of:
            self.report(path, f"stands in groups.{self.group_of[str(name)]} already; keep it in one group.")
        self.group_of.setdefault(str(name), group)
        if not isinstance(declaration, Mapping):
            self.report(path, f"found {_what(declaration)}; expected a mapping, such as {{kind: numeric}}.")
            return None
        if "kind" not in declaration:
            self.report(path, f"has no kind; expected one of {', '.join(KINDS)}.")
            return None
        kind = declaration["kind"]
        if not isinstance(kind, str) or kind not in KINDS:
            hint = kind_hint(str(kind), KINDS)
            self.report((*path, "kind"), f"found {shown(kind)}; expected one of {', '.join(KINDS)}.{hint}")
            return None
        known = ("kind", *KINDS[kind].keys)
        for key in declaration:
            if key not in known:
                expected = f"expected one of {', '.join(known)}.{key_hint(str(key), known)}"
                self.report((*path, str(key)), f"unknown key for kind {kind}; {expected}")
        return KINDS[kind].parse(str(name), declaration, lambda key, text: self.report((*path, key), text))

    def report_name(self, path: KeyPath, name: object) -> None:
        if isinstance(name, float) and path in self.document.lines:
            return  # misread_numbers has told it
        fault = name_fault(name, self.document.written.get(path))
        if fault:
            self.report(path, f"bad name: {fault}")


def _what(value: object) -> str:
    """A value that should have been a mapping, in a few words."""
    if value is None or value == {}:
        return "nothing"
    return "a list" if isinstance(value, list) else shown(value)
