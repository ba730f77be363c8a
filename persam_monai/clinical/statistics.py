# SPDX-License-Identifier: Apache-2.0
"""What is taken from the training records, and what is unusual about a new one beside them."""

from __future__ import annotations

import math
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import Annotated, Any, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from persam_monai.clinical.schema import ClinicalSchema
from persam_monai.clinical.variables import LevelVariable, NumericVariable, OrdinalVariable, Variable
from persam_monai.errors import UserError

NOTHING_KNOWN = "no clinical value is known; predicted from the slide alone"
"""The warning about a record without any value."""

_DIGITS = 2  # of a training range: enough to tell g/L from g/dL, too few for most patients' own values
_SHARE = 0.5  # of a standard deviation that rounding may add, so that it does not hide what is far outside
_SAME = 1e-6  # relative difference of values that are equal; ten times what 32-bit numbers keep

Finite = Annotated[float, Field(allow_inf_nan=False)]


class FittedStatistics(NamedTuple):
    """What gaps are filled with and what records are standardised by, each float64 ``[F]``.

    Attributes:
        median: of the observed values; 0 for a number that nobody has.
        mean: after filling gaps with the median.
        scale: population standard deviation after filling; 1 for a constant number.
    """

    median: np.ndarray
    mean: np.ndarray
    scale: np.ndarray


def fit_statistics(records: np.ndarray) -> FittedStatistics:
    """Median, mean and scale of every number of the training records.

    As scikit-learn's ``SimpleImputer(strategy="median")`` followed by ``StandardScaler`` have them.

    Args:
        records: ``[P, F]``, one row per patient; NaN where missing.

    Raises:
        ValueError: if ``records`` is no ``[P, F]`` with P at least 1, or infinite somewhere.
    """
    values = np.asarray(records, dtype=np.float64)  # [P, F]
    if values.ndim != 2 or values.shape[0] == 0:
        raise ValueError(f"records must be [P, F] with P at least 1, got {values.shape}.")
    if np.isinf(values).any():
        columns = np.flatnonzero(np.isinf(values).any(axis=0)).tolist()
        raise ValueError(f"records must be finite or NaN, found infinite values in columns {columns}.")
    observed = ~np.isnan(values)
    median = np.zeros(values.shape[1])  # [F]
    for number in np.flatnonzero(observed.any(axis=0)):
        median[number] = np.quantile(values[observed[:, number], number], 0.5)
    filled = np.where(observed, values, median)  # [P, F]
    constant = filled.max(axis=0) == filled.min(axis=0)
    mean = np.where(constant, filled[0], filled.mean(axis=0))
    least = np.finfo(np.float32).tiny  # what is below would be 0 to the network, which divides by it
    return FittedStatistics(median, mean, np.where(constant, 1.0, np.maximum(filled.std(axis=0), least)))


class VariableStatistics(BaseModel):
    """What a trained model keeps of one variable in its training records.

    Attributes:
        known: how many patients had a value.
        median: of each of its numbers, as the network sees them (after a logarithm); 0 if nobody had a value.
        mean: after filling gaps with the median.
        scale: population standard deviation after filling; 1 for a constant number.
        range: of a numeric variable, in its unit, rounded outward to two significant digits, or more where those would
            add more than half a standard deviation (exact if all patients had one value); of an ordinal one, the lowest
            and highest position. None for other kinds, or if nobody had a value.
        levels: of a binary or categorical variable, those that occurred. None for other kinds.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    known: Annotated[int, Field(ge=0, strict=True)]
    median: tuple[Finite, ...]
    mean: tuple[Finite, ...]
    scale: tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], ...]
    range: tuple[Finite, Finite] | None = None
    levels: tuple[str, ...] | None = None

    @classmethod
    def fit(cls, variable: Variable, values: np.ndarray, fitted: FittedStatistics) -> VariableStatistics:
        """Statistics of one variable.

        Args:
            variable: what it is.
            values: the known ones, ``[P, width]``.
            fitted: its median, mean and scale, each ``[width]``.
        """
        facts: dict[str, Any] = {key: part.tolist() for key, part in fitted._asdict().items()}
        if isinstance(variable, NumericVariable | OrdinalVariable):
            facts["range"] = _training_range(variable, values, facts["scale"][0]) if len(values) else None
        elif isinstance(variable, LevelVariable):
            occurred = {variable.cell(row) for row in np.unique(values, axis=0)}
            facts["levels"] = [level for level in variable.spellings if level in occurred]
        return cls(known=len(values), **facts)

    def warning(self, variable: Variable, numbers: np.ndarray, cell: str) -> str | None:
        """A sentence about a value that the training records did not prepare the network for; None for any other.

        Args:
            variable: what it is.
            numbers: float32 ``[width]``, none of them NaN.
            cell: the same as text.
        """
        if not self.known:
            return f"{variable.name}: no training patient had a value"
        if self.range is None:
            seen = self.levels is None or cell in self.levels
            return None if seen else f'{variable.name}: no training patient had "{cell}"'
        value, (low, high) = float(numbers[0]), self.range
        if low == high:
            if math.isclose(value, self.mean[0], rel_tol=_SAME):
                return None
            extent = f"differs from {_written(variable, low)}, the only value in training"
        else:
            lowest, highest = low, high
            if isinstance(variable, NumericVariable):
                lowest, highest = variable.transformed(low), variable.transformed(high)
            if lowest - self.scale[0] <= value <= highest + self.scale[0]:
                return None
            extent = f"is far outside the training range {_written(variable, low)} to {_written(variable, high)}"
        if not isinstance(variable, NumericVariable):
            return f'{variable.name}: "{cell}" {extent}'
        unit = f" {variable.unit}" if variable.unit else ""
        return f"{variable.name}: {cell}{unit} {extent}{unit}; is the unit right?"


class RecordStatistics(BaseModel):
    """What ``model.json`` keeps of the training records.

    Attributes:
        patients: how many records there were.
        variables: by name, in the schema's order.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    patients: Annotated[int, Field(ge=1, strict=True)]
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
            part = FittedStatistics(*(numbers[here] for numbers in fitted))
            variables[variable.name] = VariableStatistics.fit(variable, known, part)
        return cls(patients=len(records), variables=variables)

    @property
    def fitted(self) -> FittedStatistics:
        """Median, mean and scale of the whole record, each float64 ``[F]``."""
        each = self.variables.values()
        parts = ([part for one in each for part in getattr(one, field)] for field in FittedStatistics._fields)
        return FittedStatistics(*(np.array(part, dtype=np.float64) for part in parts))

    def to_dict(self) -> dict[str, Any]:
        """What :meth:`from_dict` reads; JSON-able."""
        return self.model_dump(mode="json", exclude_none=True)

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
        try:
            statistics = cls.model_validate(data)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            fault = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        else:
            widths = {variable.name: variable.width for variable in schema.variables}
            each = statistics.variables.items()
            if widths == {
                name: len(one.mean) for name, one in each if len(one.median) == len(one.scale) == len(one.mean)
            }:
                return statistics
            fault = f"expected the variables of its schema, {', '.join(widths)}"
        raise UserError(
            f"{source}: the statistics of the training records are damaged: {fault}. Put back the file that belongs to "
            "the model, or train anew."
        )

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
            self.variables[each.name].warning(each, vector[schema.slices[each.name]], cells[each.name])
            for each in schema.variables
            if cells[each.name]
        )
        return [sentence for sentence in found if sentence]


def _training_range(variable: Variable, values: np.ndarray, scale: float) -> tuple[float, float]:
    lowest, highest = values.min(), values.max()
    if not isinstance(variable, NumericVariable):
        return float(lowest), float(highest)
    low, high = Decimal(variable.text(lowest)), Decimal(variable.text(highest))
    if lowest == highest:
        return float(low), float(high)
    # A standard deviation of the logarithm is a share of the value.
    logarithm = variable.transform == "log"
    tolerances = [_SHARE * scale * (float(limit) if logarithm else 1.0) for limit in (low, high)]
    return float(_rounded(low, ROUND_FLOOR, tolerances[0])), float(_rounded(high, ROUND_CEILING, tolerances[1]))


def _rounded(number: Decimal, direction: str, tolerance: float) -> Decimal:
    """A number with two significant digits, or with as many as it takes to stay within ``tolerance``."""
    step = min(number.adjusted() - _DIGITS + 1, math.floor(math.log10(tolerance)))
    return number.quantize(Decimal(1).scaleb(step), direction) if number else number


def _written(variable: Variable, value: float) -> str:
    """A limit of the training range as sentences show it."""
    return f'"{variable.spellings[int(value)]}"' if isinstance(variable, LevelVariable) else f"{value:.10g}"
