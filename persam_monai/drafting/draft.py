# SPDX-License-Identifier: Apache-2.0
"""From a table to the text of a first schema."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from persam_monai.clinical import RESERVED_COLUMNS
from persam_monai.clinical.names import name_fault
from persam_monai.drafting.columns import Column, Patients, read_patients
from persam_monai.drafting.kinds import Guess, guess_kind
from persam_monai.drafting.leaks import MINIMUM_PATIENTS, enough_to_tell, find_leak
from persam_monai.drafting.marks import identifying
from persam_monai.drafting.numbers import decimal_of
from persam_monai.drafting.text import comment, flow, scalar, set_aside, variable
from persam_monai.errors import raise_together

GROUP = "record"
_GROUPS = (
    "Each group becomes one token of the network. Divide the variables by where they come from, for instance into "
    f"interview and blood: put a further name with a colon at the depth of {GROUP}, and move variables below it."
)
_ASIDE = "Set aside; take in on purpose what belongs in, by removing the # of its line."


def draft_schema(table: str | os.PathLike[str]) -> str:
    """Draft a schema from a cohort table, for a person to correct.

    Args:
        table: with the columns ``patient_id`` and ``label``.

    Returns:
        The text of a ``clinical.yaml``. Texts of columns that may name a patient, and free texts, are not in it.

    Raises:
        UserError: if the table cannot be read, or no column can be a variable.
    """
    patients = read_patients(Path(table))
    decimal, sure = decimal_of(patients.columns, patients.point)
    guesses = [(column, _guess(column, decimal or ".", patients.labels)) for column in patients.columns]
    if all(guess.reason for _, guess in guesses):
        reasons = [f"{column.name}: {guess.reason}" for column, guess in guesses]
        raise_together(f"{table}: found no column that may be a clinical variable", reasons or ["there is none"])
    lines = _heading(patients, decimal, sure)
    for column, guess in guesses:
        if not guess.reason:
            lines += variable(column.name, guess.declaration, [_count(column, guess), *guess.notes])
    lines += ["", *comment(_ASIDE, "    ")] if any(guess.reason for _, guess in guesses) else []
    for column, guess in guesses:
        if guess.reason:
            more = [_count(column, guess), *guess.notes] if guess.declaration else []
            lines += set_aside(column.name, guess.declaration, [f"{guess.reason}.", *more])
    return "\n".join(lines) + "\n"


def _guess(column: Column, decimal: str, labels: Sequence[str | None]) -> Guess:
    """What a column may be, with a reason if it is set aside."""
    unusable = _unusable(column)
    if unusable is not None:
        return Guess({}, np.empty((0, 0)), 0, reason=unusable)
    guess = guess_kind(column, decimal)
    if guess.reason is None:
        guess.reason = _varying(column) or _leaking(guess, labels)
    return guess


def _unusable(column: Column) -> str | None:
    """Why a column can be no variable, whatever its kind."""
    fault = name_fault(column.name)
    if fault:
        return f"this name of a column cannot be a variable's: {fault.rstrip('.')}"
    if column.name.lower() in RESERVED_COLUMNS:
        return f"this name is too near to {column.name.lower()}; rename the column to that, or to something else"
    if column.fault:
        return f"cannot be read: {column.fault.rstrip('.')}"
    different, filled = {str(cell).casefold() for cell in column.known}, len(column.known)
    if not different:
        return "empty in every row"
    if len(different) == 1:
        gaps = "" if filled == len(column.cells) else "; if an empty cell means something, such as no, write it there"
        constant = f"constant: the same value wherever it is known (patients: {filled} of {len(column.cells)}){gaps}"
        return _varying(column) or constant
    return identifying(column)


def _varying(column: Column) -> str | None:
    """Why a column is none of the patient's."""
    if not column.varying:
        return None
    return (
        f"differs between the rows of a patient (patients: {column.varying}), but a clinical variable belongs to the "
        "patient; if that is a slip, make the rows agree and take the variable in"
    )


def _leaking(guess: Guess, labels: Sequence[str | None]) -> str | None:
    """Why a variable would teach a model nothing but to read the answer."""
    leak = find_leak(guess.values, labels)
    if leak is None:
        return None
    return (
        f"SUSPECTED LEAK: {leak}. Is it known before the diagnosis is, and without it? Only then take it in; a model "
        "would learn to read the answer from it"
    )


def _heading(patients: Patients, decimal: str | None, sure: bool) -> list[str]:
    """Everything above the variables."""
    counts = Counter(label for label in patients.labels if label is not None)
    lines = comment(
        f"Drafted from {patients.path.name} (slides: {patients.slides}, patients: {len(patients.labels)}). All of it "
        "is guessed from the cells: a person who knows what the variables are has to correct it. What each key means "
        "is in bundle/docs/clinical.md; scripts/check_cohort.py reads table and schema as a training would."
    )
    if patients.uneven:
        lines += comment(f"Rows that are not as long as the header were left out: {patients.uneven}.")
    if not enough_to_tell(patients.labels):
        lines += comment(
            f"Too few patients to tell which variables give the label away: at least {MINIMUM_PATIENTS} are needed, of "
            "classes with at least five each. See to it that nothing in here is a result of the diagnosis."
        )
    unlabelled = len(patients.labels) - counts.total()
    without = f"; without a label: {unlabelled}" if unlabelled else ""
    lines += ["", *comment(f"Patients: {_listed(counts)}{without}. The order of the classes is free.")]
    lines += [f"classes: {flow(sorted(counts))}"]
    if decimal is not None and not (decimal == "." and patients.point):
        if not sure:
            lines += comment(
                "Not certain: 1,200 and the like may also be thousands. Look, and correct this if need be."
            )
        lines += [f"decimal: {scalar(decimal)}"]
    return [*lines, "groups:", *comment(_GROUPS, "  "), f"  {GROUP}:"]


def _count(column: Column, guess: Guess) -> str:
    """How much of a variable is known."""
    patients = len(column.cells)
    gaps = patients - len(column.known)
    share = f", {100 * gaps / patients:.0f} %" if gaps else ""
    text = f"Missing: {gaps} of {patients} patients{share}; different values: {guess.different}."
    if column.doubtful:
        words = ", ".join(f'"{word}" ({count})' for word, count in sorted(column.doubtful.items()))
        text += f" Missing by these words, unless they are made levels: {words}."
    return text


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {counts[name]}" for name in sorted(counts))
