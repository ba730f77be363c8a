# SPDX-License-Identifier: Apache-2.0
"""The clinical record: what its variables are, and how a row of cells becomes a float vector."""

from __future__ import annotations

from persam_monai.clinical.cells import CellError, CellRules
from persam_monai.clinical.schema import RESERVED_COLUMNS, ClinicalSchema
from persam_monai.clinical.statistics import NOTHING_KNOWN, RecordStatistics, VariableStatistics, fit_statistics
from persam_monai.clinical.variables import (
    BinaryVariable,
    CategoricalVariable,
    LevelVariable,
    NumericVariable,
    OrdinalVariable,
    Variable,
)

__all__ = [
    "NOTHING_KNOWN",
    "RESERVED_COLUMNS",
    "BinaryVariable",
    "CategoricalVariable",
    "CellError",
    "CellRules",
    "ClinicalSchema",
    "LevelVariable",
    "NumericVariable",
    "OrdinalVariable",
    "RecordStatistics",
    "Variable",
    "VariableStatistics",
    "fit_statistics",
]
