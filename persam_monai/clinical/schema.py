# SPDX-License-Identifier: Apache-2.0
"""The clinical schema: classes, and groups of typed variables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from persam_monai.clinical.cells import CellError, CellRules, is_code, number_or_none, shown
from persam_monai.clinical.variables import KINDS, AnyVariable, Codes, Name, Names, NumericVariable, Variable
from persam_monai.errors import UserError, did_you_mean, raise_together

RESERVED_COLUMNS = ("patient_id", "slide", "label", "fold", "mpp")
"""Columns of the cohort table that are not clinical variables."""

KeyPath = tuple[str, ...]
_HEADING = "the clinical schema needs correcting"


def _filled(groups: dict[str, Any]) -> dict[str, Any]:
    if not groups:
        raise ValueError("expected at least one entry, such as age: {kind: numeric} in a group")
    return groups


class ClinicalSchema(BaseModel):
    """What ``clinical.yaml`` declares: the classes in order, and the clinical variables in groups.

    Each group becomes one clinical token of the network. Encoding here is stateless (levels to 0/1, logarithm); filling
    gaps and standardising need statistics of a training fold and happen inside the network.

    Example:
        >>> schema = ClinicalSchema.from_dict({
        ...     "classes": ["DLBCL", "FL"],
        ...     "groups": {"interview": {"age": {"kind": "numeric"},
        ...                              "sex": {"kind": "categorical", "levels": ["female", "male"]}}},
        ... })
        >>> schema.encode({"age": "63", "sex": "male"}, "row 2")
        array([63.,  0.,  1.], dtype=float32)
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    classes: Names = Field(description="names as in the label column, at least two; their position is the label index")
    missing_codes: Codes = Field((), description='numbers and texts that mean "not known" for every variable')
    decimal: Literal[".", ","] | None = Field(
        None, description="decimal sign of the table's text cells; without it the point, where no column leaves doubt"
    )
    thousands: Literal[",", ".", " ", "'"] | None = Field(
        None, description="sign between thousands in the table's text cells; without it none is admitted"
    )
    groups: Annotated[
        dict[Name, Annotated[dict[Name, AnyVariable], AfterValidator(_filled)]], AfterValidator(_filled)
    ] = Field(description="groups of variables by name; each variable is a column of the cohort table")

    def model_post_init(self, context: Any, /) -> None:
        """Tell each variable its name."""
        for variables in self.groups.values():
            for name, variable in variables.items():
                variable.named(name)

    @classmethod
    def load(cls, path: str | Path) -> ClinicalSchema:
        """Read ``clinical.yaml``, or the schema in a trained model's ``model.json``.

        Raises:
            UserError: with every fault of the file, each with line, key path and cure.
        """
        data, lines = _read_yaml(Path(path))
        if isinstance(data, Mapping) and "schema" in data:
            data, lines = data["schema"], {}
        return cls.from_dict(data, str(path), lines)

    @classmethod
    def from_dict(
        cls, data: object, source: str = "clinical.yaml", lines: Mapping[KeyPath, int] | None = None
    ) -> ClinicalSchema:
        """Build a schema from the mapping that the file (or ``model.json``) holds.

        Args:
            data: keys ``classes`` and ``groups``, and perhaps ``missing_codes``, ``decimal`` and ``thousands``.
            source: the file to name in messages.
            lines: line of each key in the file, from 1, where it is known.

        Raises:
            UserError: with every fault, each with key path and cure.
        """
        problems: list[tuple[KeyPath, str]]
        if not isinstance(data, Mapping):
            raise UserError(f"{source}: found {shown(data)}; expected a mapping with the keys classes and groups.")
        try:
            schema = cls.model_validate(data)
        except ValidationError as error:
            problems = [_in_words(fault) for fault in error.errors(include_url=False)]
        else:
            problems = list(schema._conflicts())
        raise_together(f"{source}: {_HEADING}", [_with_line(path, text, lines or {}) for path, text in problems])
        return schema

    @classmethod
    def without_record(cls, classes: tuple[str, ...] = ()) -> ClinicalSchema:
        """A schema of no variable, for slides without a clinical record."""
        return cls.model_construct(classes=classes, groups={})

    def to_dict(self) -> dict[str, Any]:
        """The mapping that :meth:`from_dict` reads back to an equal schema; JSON-able."""
        return self.model_dump(mode="json", exclude_defaults=True)

    @cached_property
    def variables(self) -> tuple[Variable, ...]:
        """All variables, group after group."""
        return tuple(variable for variables in self.groups.values() for variable in variables.values())

    @property
    def variable_names(self) -> list[str]:
        """Columns of the cohort table, group after group."""
        return [variable.name for variable in self.variables]

    @property
    def component_names(self) -> list[str]:
        """A name for each number of an encoded record, such as ``age`` or ``sex=female``."""
        return [component for variable in self.variables for component in variable.components]

    @property
    def group_sizes(self) -> list[int]:
        """How many numbers of an encoded record belong to each group."""
        return [sum(sizes) for sizes in self.variable_sizes]

    @property
    def variable_sizes(self) -> list[list[int]]:
        """How many numbers of an encoded record belong to each variable of each group."""
        return [[variable.width for variable in variables.values()] for variables in self.groups.values()]

    @cached_property
    def size(self) -> int:
        """How many numbers an encoded record has."""
        return sum(self.group_sizes)

    @cached_property
    def slices(self) -> dict[str, slice]:
        """Where each variable's numbers are in an encoded record."""
        slices, start = {}, 0
        for variable in self.variables:
            slices[variable.name] = slice(start, start + variable.width)
            start += variable.width
        return slices

    def rules(self, decimal: str | None = None) -> CellRules:
        """How cells are written.

        Args:
            decimal: decimal sign of a table that differs from what the schema declares; a thousands sign that is the
                same one then changes with it. None for the schema's own, or the point.
        """
        sign = decimal or self.decimal or "."
        thousands = self.thousands
        if thousands == sign:
            thousands = "." if sign == "," else ","
        return CellRules(sign, thousands, self.missing_codes)

    def encode(self, record: Mapping[str, object], where: str) -> np.ndarray:
        """Encode one patient's record.

        Args:
            record: variable name to cell: text as in the table, or a number or truth value. A variable that is absent
                is missing, like an empty cell, None or NaN.
            where: the record to name in messages, such as ``"--record"``.

        Returns:
            float32 ``[size]``, NaN where the value is missing.

        Raises:
            UserError: with every cell that the schema does not admit and every name that it does not know.
        """
        problems = [
            f'"{name}": found {shown(value)}, expected a variable of the clinical schema.'
            f"{did_you_mean(str(name), self.slices)}"
            for name, value in record.items()
            if name not in self.slices
        ]
        vector, faults = self.encode_cells(record, self.rules())
        problems += [
            f'"{name}": found {shown(record[name])}, expected {fault.expected}.{fault.hint}'
            for name, fault in faults.items()
        ]
        raise_together(f"{where}: the clinical record needs correcting", problems)
        return vector

    def encode_cells(self, record: Mapping[str, object], rules: CellRules) -> tuple[np.ndarray, dict[str, CellError]]:
        """As :meth:`encode`, but hand the problems back, for tables that report those of all rows together.

        Returns:
            float32 ``[size]`` with NaN where the value is missing or has a problem, and the problem of each variable.
        """
        vector, problems = np.full(self.size, np.nan, dtype=np.float32), {}
        for variable in self.variables:
            try:
                vector[self.slices[variable.name]] = variable.encode(record.get(variable.name), rules)
            except CellError as error:
                problems[variable.name] = error
        return vector, problems

    def describe(self, vector: np.ndarray) -> dict[str, str]:
        """The way back from :meth:`encode`: one spelling for each vector, whatever the table's cells looked like.

        Args:
            vector: float32 ``[size]``, NaN where the value is missing.

        Returns:
            Variable name to cell, empty where missing. Numbers have as many digits as it takes to become the same
            vector again, a decimal point unless the schema declares another sign, and nothing between thousands.
        """
        rules = self.rules()
        return {variable.name: variable.cell(vector[self.slices[variable.name]], rules) for variable in self.variables}

    def _conflicts(self) -> Iterator[tuple[KeyPath, str]]:
        """What is sound by itself and does not fit together."""
        if self.thousands is not None and self.thousands == (self.decimal or "."):
            yield ("thousands",), f'found "{self.thousands}", which is the decimal sign; correct decimal or thousands.'
        group_of: dict[str, str] = {}
        for group, variables in self.groups.items():
            for name, variable in variables.items():
                path = ("groups", group, name)
                if name.lower() in RESERVED_COLUMNS:
                    yield path, f"{name.lower()} is a column of its own in the cohort table; rename the variable."
                if group_of.setdefault(name, group) != group:
                    yield path, f"is in groups.{group_of[name]} already; keep it in one group."
                for codes, where in ((variable.missing_codes, path), (self.missing_codes, ())):
                    for code in codes:
                        if any(is_code(answer, (code,)) for answer in variable.answers):
                            text = f"found {shown(code)}, which is an answer of {name}; remove the code or the level."
                            yield (*where, "missing_codes"), text
                for code in self.missing_codes:
                    number = number_or_none(code)
                    limits = variable.range if isinstance(variable, NumericVariable) else None
                    if limits and number is not None and limits[0] <= number <= limits[1]:
                        cure = "give it as missing_codes to the variables that use it"
                        yield ("missing_codes",), f"found {number:g}, which lies in the range of {name}; {cure}."


def _read_yaml(path: Path) -> tuple[object, dict[KeyPath, int]]:
    """What a schema's file holds, and the line of each key."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        root = yaml.compose(text, yaml.SafeLoader)
        data = yaml.safe_load(text)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; expected the clinical schema.") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: the clinical schema is not UTF-8 text; save it again as UTF-8.") from None
    except OSError as error:
        raise UserError(f"{path}: the clinical schema cannot be read: {error.strerror}.") from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: an impossible date, which YAML makes without quotes
        described = " ".join(str(error).split())
        cure = 'Put text with special characters in quotes, such as unit: "%".'
        raise UserError(f"{path}: the clinical schema is not valid YAML: {described}. {cure}") from error
    lines: dict[KeyPath, int] = {}
    repeated = []
    for key, line in _keys(root):
        if key in lines:
            repeated.append(f"line {line}, {'.'.join(key)}: is in line {lines[key]} already; rename or remove one.")
        lines.setdefault(key, line)
    raise_together(f"{path}: {_HEADING}", repeated)
    return data, lines


def _keys(node: yaml.Node | None, path: KeyPath = ()) -> Iterator[tuple[KeyPath, int]]:
    """Each key path of nested mappings as it is written, with its line from 1."""
    # Four levels: groups, group, variable, key. The limit also ends the walk of a file that refers to itself.
    if isinstance(node, yaml.MappingNode) and len(path) < 4:
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode):
                here = (*path, key.value)
                yield here, key.start_mark.line + 1
                yield from _keys(value, here)


def _with_line(path: KeyPath, text: str, lines: Mapping[KeyPath, int]) -> str:
    known = next((path[:end] for end in range(len(path), 0, -1) if path[:end] in lines), None)
    line = f"line {lines[known]}, " if known else ""
    return f"{line}{'.'.join(path)}: {text}"


def _in_words(fault: Any) -> tuple[KeyPath, str]:
    """One of pydantic's errors: the key path, and what was found and expected."""
    path, found, context = [str(part) for part in fault["loc"]], fault["input"], fault.get("ctx", {})
    model: Any = ClinicalSchema
    if path[:1] == ["groups"] and len(path) > 3 and path[3] in KINDS:
        model = KINDS[path.pop(3)]  # pydantic adds the kind to the path
    if path[-1:] == ["[key]"]:
        path.pop()
        return tuple(path), f"bad name: {context.get('error', fault['msg'])}."
    match fault["type"]:
        case "extra_forbidden":
            known = [name for name in model.model_fields if name != "kind"]
            return tuple(path), f"unknown key; expected one of {', '.join(known)}.{did_you_mean(path[-1], known)}"
        case "missing" if path[-1] in model.model_fields:
            return tuple(path), f"is missing; expected {model.model_fields[path[-1]].description or 'a value'}."
        case "union_tag_not_found":
            return tuple(path), f"has no kind; expected one of {', '.join(KINDS)}."
        case "union_tag_invalid":
            kind = found.get("kind")
            expected = f"expected one of {', '.join(KINDS)}.{did_you_mean(str(kind), KINDS)}"
            return (*path, "kind"), f"found {shown(kind)}; {expected}"
        case "value_error":
            what = "" if isinstance(found, Mapping | list | tuple) else f"found {shown(found)}; "
            return tuple(path), f"{what}{context['error']}."
    message = str(fault["msg"])
    return tuple(path), f"found {shown(found)}; {message[0].lower()}{message[1:]}."
