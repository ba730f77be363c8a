# SPDX-License-Identifier: Apache-2.0
"""The kinds of clinical variable, by name. A further kind is one more class, entered here."""

from __future__ import annotations

from persam_monai.clinical.levels import BinaryVariable, CategoricalVariable, OrdinalVariable
from persam_monai.clinical.numeric import NumericVariable
from persam_monai.clinical.variables import Variable

KINDS: dict[str, type[Variable]] = {
    variable.kind: variable for variable in (NumericVariable, BinaryVariable, CategoricalVariable, OrdinalVariable)
}
