# SPDX-License-Identifier: Apache-2.0
"""The kinds of clinical variable, by name. A further kind is one more class, entered here."""

from __future__ import annotations

from persam_monai.clinical.variables.base import Variable
from persam_monai.clinical.variables.levels import BinaryVariable, CategoricalVariable, OrdinalVariable
from persam_monai.clinical.variables.numeric import NumericVariable

KINDS: dict[str, type[Variable]] = {
    variable.kind: variable for variable in (NumericVariable, BinaryVariable, CategoricalVariable, OrdinalVariable)
}
