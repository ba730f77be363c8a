# SPDX-License-Identifier: Apache-2.0
"""What must fit together in a schema: what holds for all variables, and what each one declares."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from persam_monai.clinical.cells import shown
from persam_monai.clinical.declaration.document import KeyPath
from persam_monai.clinical.numbers import number_or_none
from persam_monai.clinical.rules import CellRules, is_code
from persam_monai.clinical.variables.base import Variable
from persam_monai.clinical.variables.numeric import NumericVariable

ReportAt = Callable[[KeyPath, str], None]
"""Takes a key path and what is wrong there."""


def check_together(rules: CellRules, groups: Mapping[str, tuple[Variable, ...]], report: ReportAt) -> None:
    """Report signs that mean two things, and missing codes that mean a value.

    Args:
        rules: what holds for all variables.
        groups: the sound variables.
        report: takes each fault.
    """
    if rules.thousands is not None and rules.thousands == (rules.decimal or "."):
        report(("thousands",), _same_sign(rules.decimal))
    for group, variables in groups.items():
        for variable in variables:
            path = ("groups", group, variable.name)
            for text in _bad_codes(variable.missing_codes, variable):
                report((*path, "missing_codes"), text)
            for text in _bad_codes(rules.missing_codes, variable):
                report(("missing_codes",), text)
            if isinstance(variable, NumericVariable):
                _check_signs(rules, variable, path, report)
                for text in _codes_in_range(rules.missing_codes, variable):
                    report(("missing_codes",), text)


def _check_signs(rules: CellRules, variable: NumericVariable, path: KeyPath, report: ReportAt) -> None:
    """A variable's own sign does not clash with its other one, which may be the schema's."""
    decimal, thousands = variable.decimal or rules.decimal, variable.thousands or rules.thousands
    if thousands is not None and thousands == (decimal or ".") and (variable.decimal or variable.thousands):
        report((*path, "thousands" if variable.thousands else "decimal"), _same_sign(decimal))


def _same_sign(decimal: str | None) -> str:
    declared = "the decimal sign" if decimal else "the decimal sign unless decimal says otherwise"
    return f'found "{decimal or "."}" between thousands, which is {declared}; correct decimal or thousands.'


def _bad_codes(codes: tuple[str | float, ...], variable: Variable) -> Iterator[str]:
    for code in codes:
        if any(is_code(answer, (code,)) for answer in variable.answers):
            yield f"found {_shown(code)}, which is an answer of {variable.name}; remove the code or the level."


def _codes_in_range(codes: tuple[str | float, ...], variable: NumericVariable) -> Iterator[str]:
    for code in codes:
        number = number_or_none(code)
        if number is not None and variable.range and variable.range[0] <= number <= variable.range[1]:
            own = "give it as missing_codes to the variables that use it"
            yield f"found {_shown(code)}, which lies in the range of {variable.name}; {own}."


def _shown(code: str | float) -> str:
    return shown(code) if isinstance(code, str) else f"{code:.15g}"
