# SPDX-License-Identifier: Apache-2.0
"""The clinical record: what its variables are, and how a row of cells becomes a float vector."""

from __future__ import annotations

from persam_monai.clinical.cells import MISSING_SPELLINGS, CellError, CellProblem, is_missing, shown
from persam_monai.clinical.numbers import NumberFormat, decimal_evidence, parse_number
from persam_monai.clinical.schema import RESERVED_COLUMNS, ClinicalSchema
from persam_monai.clinical.statistics import FittedStatistics, RecordStatistics, VariableStatistics, fit_statistics
from persam_monai.clinical.variables import (
    BinaryVariable,
    CategoricalVariable,
    NumericVariable,
    OrdinalVariable,
    Variable,
)

__all__ = [
    "MISSING_SPELLINGS",
    "RESERVED_COLUMNS",
    "BinaryVariable",
    "CategoricalVariable",
    "CellError",
    "CellProblem",
    "ClinicalSchema",
    "FittedStatistics",
    "NumberFormat",
    "NumericVariable",
    "OrdinalVariable",
    "RecordStatistics",
    "Variable",
    "VariableStatistics",
    "decimal_evidence",
    "fit_statistics",
    "is_missing",
    "parse_number",
    "shown",
]
