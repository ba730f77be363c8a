# SPDX-License-Identifier: Apache-2.0
"""The clinical schema: classes, and groups of typed variables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from persam_monai.clinical.cells import CellError, CellProblem, shown
from persam_monai.clinical.declaration.document import Document, read_document
from persam_monai.clinical.declaration.parsing import RESERVED_COLUMNS, SchemaParts, parse_schema
from persam_monai.clinical.rules import CellRules
from persam_monai.clinical.variables.base import Variable
from persam_monai.clinical.variables.numeric import NumericVariable
from persam_monai.errors import did_you_mean, raise_together

__all__ = ["RESERVED_COLUMNS", "ClinicalSchema"]


@dataclass(frozen=True)
class ClinicalSchema:
    """What ``clinical.yaml`` declares: the classes in order, and the clinical variables in groups.

    Each group becomes one clinical token of the network. Encoding here is stateless (levels to 0/1, logarithm); filling
    gaps and standardising need statistics of a training fold and happen inside the network.

    Args:
        classes: names as in the label column; their position is the label index.
        groups: variables of each group, in the order of the file.
        missing_codes: numbers and texts that mean "not known" for every variable.
        decimal: decimal sign of text cells, ``"."`` or ``","``; None if the table tells.
        thousands: sign between thousands in text cells; None for no sign.

    Example:
        >>> schema = ClinicalSchema.from_dict({
        ...     "classes": ["DLBCL", "FL"],
        ...     "groups": {"interview": {"age": {"kind": "numeric"},
        ...                              "sex": {"kind": "categorical", "levels": ["female", "male"]}}},
        ... })
        >>> schema.encode({"age": "63", "sex": "male"}, "row 2")
        array([63.,  0.,  1.], dtype=float32)
    """

    classes: tuple[str, ...]
    groups: dict[str, tuple[Variable, ...]]
    missing_codes: tuple[str | float, ...] = ()
    decimal: str | None = None
    thousands: str | None = None

    @classmethod
    def load(cls, path: str | Path) -> ClinicalSchema:
        """Read ``clinical.yaml``.

        Raises:
            UserError: with every fault of the file, each with line, key path and cure.
        """
        return cls._of(parse_schema(read_document(Path(path), "the clinical schema")))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], source: str = "clinical.yaml") -> ClinicalSchema:
        """Build a schema from the mapping that the file (or ``model.json``) holds.

        Args:
            data: keys ``classes`` and ``groups``, and perhaps ``missing_codes``, ``decimal`` and ``thousands``.
            source: the file to name in messages.

        Raises:
            UserError: with every fault, each with key path and cure.
        """
        return cls._of(parse_schema(Document(data, source)))

    @classmethod
    def _of(cls, parts: SchemaParts) -> ClinicalSchema:
        rules = parts.rules
        return cls(parts.classes, parts.groups, rules.missing_codes, rules.decimal, rules.thousands)

    def to_dict(self) -> dict[str, Any]:
        """The mapping that :meth:`from_dict` reads back to an equal schema; JSON-able."""
        groups = {
            group: {variable.name: variable.to_dict() for variable in variables}
            for group, variables in self.groups.items()
        }
        options = {"missing_codes": list(self.missing_codes), "decimal": self.decimal, "thousands": self.thousands}
        return {
            "classes": list(self.classes),
            **{key: value for key, value in options.items() if value},
            "groups": groups,
        }

    @cached_property
    def variables(self) -> tuple[Variable, ...]:
        """All variables, group after group."""
        return tuple(variable for variables in self.groups.values() for variable in variables)

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
        return [[variable.width for variable in variables] for variables in self.groups.values()]

    @property
    def undecided_decimals(self) -> list[str]:
        """Numeric variables whose decimal sign the table must tell, because the schema does not."""
        numeric = [variable for variable in self.variables if isinstance(variable, NumericVariable)]
        return [variable.name for variable in numeric if variable.declared_decimal(self.rules()) is None]

    @property
    def size(self) -> int:
        """How many numbers an encoded record has."""
        return sum(self.group_sizes)

    @cached_property
    def slices(self) -> dict[str, slice]:
        """Where each variable's numbers stand in an encoded record."""
        slices, start = {}, 0
        for variable in self.variables:
            slices[variable.name] = slice(start, start + variable.width)
            start += variable.width
        return slices

    def rules(self, decimal: str | None = None) -> CellRules:
        """How cells are read where a variable does not say so itself.

        Args:
            decimal: the decimal sign that the table shows; None for the point.
        """
        return CellRules(self.missing_codes, self.decimal, self.thousands, decimal)

    def encode(self, record: Mapping[str, object], where: str, decimal: str | None = None) -> np.ndarray:
        """Encode one patient's record.

        Args:
            record: variable name to cell: text as in the table, or a number or truth value. A variable that is absent
                is missing, like an empty cell, None or NaN.
            where: the place to name in messages, such as ``"cohort.csv, row 5"``.
            decimal: the decimal sign that the table shows, for the text of variables whose sign the schema does not
                settle; None for the point.

        Returns:
            float32 ``[size]``, NaN where the value is missing.

        Raises:
            UserError: with every cell that the schema does not admit and every name that it does not know.
        """
        vector, problems = self.encode_cells(record, decimal)
        raise_together(f"{where}: the clinical record needs correcting", [f"{problem}" for problem in problems])
        return vector

    def encode_cells(
        self, record: Mapping[str, object], decimal: str | None = None
    ) -> tuple[np.ndarray, list[CellProblem]]:
        """As :meth:`encode`, but hand the problems back, for tables that report those of all rows together.

        Returns:
            float32 ``[size]`` with NaN where the value is missing or has a problem, and the problems.
        """
        vector, rules = np.full(self.size, np.nan, dtype=np.float32), self.rules(decimal)
        problems = [
            CellProblem(
                name, shown(record[name]), "a variable of the clinical schema.", did_you_mean(str(name), self.slices)
            )
            for name in record
            if name not in self.slices
        ]
        for variable in self.variables:
            value = record.get(variable.name)
            try:
                vector[self.slices[variable.name]] = variable.encode(value, rules)
            except CellError as error:
                problems.append(CellProblem(variable.name, shown(value), error.expected, error.hint))
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
