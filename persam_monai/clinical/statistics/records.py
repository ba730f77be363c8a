# SPDX-License-Identifier: Apache-2.0
"""What a trained model keeps of its training records, and what is unusual about a new one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from persam_monai.clinical.schema import ClinicalSchema
from persam_monai.clinical.statistics.fitted import FittedStatistics, fit_statistics
from persam_monai.clinical.statistics.unusual import unusual
from persam_monai.clinical.statistics.variable import VariableStatistics
from persam_monai.errors import raise_together

NOTHING_KNOWN = "no clinical value is known; predicted from the slide alone"
"""What is told about a record without any value."""

_CURE = "put back the file that belongs to the model, or train anew"


@dataclass(frozen=True)
class RecordStatistics:
    """What ``model.json`` keeps of the training records.

    Args:
        patients: how many records there were.
        variables: by name, in the schema's order.
    """

    patients: int
    variables: dict[str, VariableStatistics]

    @classmethod
    def fit(cls, schema: ClinicalSchema, records: np.ndarray) -> RecordStatistics:
        """Statistics of the training records.

        Args:
            schema: whose records they are.
            records: ``[P, F]``, one row per patient; NaN where missing.

        Raises:
            ValueError: if ``records`` has another shape, no row, or an infinite number.
        """
        fitted = fit_statistics(records)
        if fitted.median.size != schema.size:
            raise ValueError(f"records must be [P, {schema.size}] for this schema, got {np.shape(records)}.")
        variables = {}
        for variable in schema.variables:
            here = schema.slices[variable.name]
            known = records[~np.isnan(records[:, here]).any(axis=1), here]  # [known, width]
            variables[variable.name] = VariableStatistics.fit(variable, known, *(part[here] for part in fitted))
        return cls(len(records), variables)

    @property
    def fitted(self) -> FittedStatistics:
        """Median, mean and scale of the whole record, each float64 ``[F]``."""
        each = self.variables.values()
        parts = ([part for one in each for part in getattr(one, field)] for field in FittedStatistics._fields)
        return FittedStatistics(*(np.array(part, dtype=np.float64) for part in parts))

    def to_dict(self) -> dict[str, Any]:
        """What :meth:`from_dict` reads; JSON-able."""
        return {"patients": self.patients, "variables": {name: one.to_dict() for name, one in self.variables.items()}}

    @classmethod
    def from_dict(cls, schema: ClinicalSchema, data: object, source: str) -> RecordStatistics:
        """Read what :meth:`to_dict` wrote.

        Args:
            schema: whose records they are.
            data: as JSON delivered it.
            source: the file to name in messages.

        Raises:
            UserError: if it is damaged or belongs to another schema.
        """
        data = data if isinstance(data, Mapping) else {}
        patients, entries = data.get("patients"), data.get("variables")
        problems = []
        if isinstance(patients, bool) or not isinstance(patients, int) or patients < 1:
            problems.append(f"patients: found {patients!r}, expected a whole number from 1; {_CURE}.")
            patients = 0
        entries = entries if isinstance(entries, Mapping) else {}
        if list(entries) != schema.variable_names:
            expected = f"expected those of the schema, {', '.join(schema.variable_names)}; {_CURE}."
            problems.append(f"variables: found {', '.join(map(str, entries)) or 'none'}, {expected}")
            entries = {}
        variables = {}
        for variable in schema.variables if entries else ():
            faults: list[str] = []
            entry = entries[variable.name]
            variables[variable.name] = VariableStatistics.from_dict(variable, entry, patients, faults.append)
            problems += [f"variables.{variable.name}: {fault}; {_CURE}." for fault in faults]
        raise_together(f"{source}: the statistics of the training records are damaged", problems)
        return cls(patients, variables)

    def warnings(self, schema: ClinicalSchema, vector: np.ndarray) -> list[str]:
        """What is unusual about a record, one sentence per variable.

        Args:
            schema: whose record it is.
            vector: float32 ``[F]``, NaN where missing.

        Returns:
            A sentence for every value that is far outside the training range (by more than one standard deviation, as
            the network sees it; by anything, if training had one value), for every level and every variable that no
            training patient had. If nothing is known at all, one sentence says so.
        """
        if np.isnan(vector).all():
            return [NOTHING_KNOWN]
        cells = schema.describe(vector)
        found = (
            unusual(each, vector[schema.slices[each.name]], cells[each.name], self.variables[each.name])
            for each in schema.variables
            if cells[each.name]
        )
        return [sentence for sentence in found if sentence]
