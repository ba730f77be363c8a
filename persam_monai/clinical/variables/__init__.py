# SPDX-License-Identifier: Apache-2.0
"""The kinds of clinical variable: how each is declared, and how its cells become numbers and numbers its cells."""

from __future__ import annotations

from persam_monai.clinical.variables.base import Variable
from persam_monai.clinical.variables.levels import BinaryVariable, CategoricalVariable, OrdinalVariable
from persam_monai.clinical.variables.numeric import NumericVariable

__all__ = ["BinaryVariable", "CategoricalVariable", "NumericVariable", "OrdinalVariable", "Variable"]
