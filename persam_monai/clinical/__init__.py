# SPDX-License-Identifier: Apache-2.0
"""The clinical record: what its variables are, and how a row of cells becomes a float vector."""

from __future__ import annotations

from persam_monai.clinical.cells import MISSING_SPELLINGS, CellProblem, is_missing, parse_number, shown
from persam_monai.clinical.schema import RESERVED_COLUMNS, ClinicalSchema
from persam_monai.clinical.variables import BinaryVariable, CategoricalVariable, NumericVariable, Variable

__all__ = [
    "MISSING_SPELLINGS",
    "RESERVED_COLUMNS",
    "BinaryVariable",
    "CategoricalVariable",
    "CellProblem",
    "ClinicalSchema",
    "NumericVariable",
    "Variable",
    "is_missing",
    "parse_number",
    "shown",
]
