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
from persam_monai.cohort.tables import CellFault
from persam_monai.drafting.codes import about_codes, shared_codes
from persam_monai.drafting.columns import Column, read_patients
from persam_monai.drafting.heading import heading
from persam_monai.drafting.kinds import Guess, guess_kind
from persam_monai.drafting.leaks import find_leak
from persam_monai.drafting.marks import identifying
from persam_monai.drafting.names import afterwards, bookkeeping, personal
from persam_monai.drafting.numbers import decimal_of
from persam_monai.drafting.text import comment, set_aside, variable
from persam_monai.errors import raise_together

_ASIDE = "Set aside; take in on purpose what belongs in, by removing the # of its line."
_FEW_VARYING = 0.05  # of the patients with several rows: slips, and no property of a slide


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
    shared = shared_codes([guess for _, guess in guesses])
    lines = heading(patients, decimal, sure, shared)
    for column, guess in guesses:
        if not guess.reason:
            lines += variable(column.name, guess.declaration, _notes(column, guess, about_codes(guess, shared)))
    lines += ["", *comment(_ASIDE, "    ")] if any(guess.reason for _, guess in guesses) else []
    for column, guess in guesses:
        if guess.reason:
            more = _notes(column, guess, about_codes(guess, shared)) if guess.declaration else []
            lines += set_aside(column.name, guess.declaration, [f"{guess.reason}.", *more])
    return "\n".join(lines) + "\n"


def _guess(column: Column, decimal: str, labels: Sequence[str | None]) -> Guess:
    """What a column may be, with a reason if it is set aside."""
    unusable = _unusable(column)
    if unusable is not None:
        return Guess({}, np.empty((0, 0)), 0, reason=unusable)
    guess = guess_kind(column, decimal)
    if guess.reason is None:
        guess.reason = _varying(column) or _leaking(column, guess, labels)
    return guess


def _unusable(column: Column) -> str | None:
    """Why a column can be no variable, whatever its kind."""
    fault = name_fault(column.name)
    if fault:
        return f"this name of a column cannot be a variable's: {fault.rstrip('.')}"
    if column.name.lower() in RESERVED_COLUMNS:
        return f"this name is too near to {column.name.lower()}; rename the column to that, or to something else"
    by_name = personal(column.name)
    if by_name:
        return by_name
    if column.fault:
        return f"cannot be read: {column.fault.rstrip('.')}"
    different, filled = {str(cell).casefold() for cell in column.known}, len(column.known)
    if len(different) <= 1 and column.unreadable:
        return _unreadable(column.unreadable)
    if not different:
        return "empty in every row"
    if len(different) == 1:
        gaps = "" if filled == len(column.cells) else "; if an empty cell means something, such as no, write it there"
        constant = f"constant: the same value wherever it is known (patients: {filled} of {len(column.cells)}){gaps}"
        return _varying(column) or constant
    return identifying(column)


def _unreadable(faults: Counter[CellFault]) -> str:
    """Cells that hold no value, by what can be done about them."""
    cures = Counter[str]()
    for fault, rows in faults.items():
        cures[fault.expected.rstrip(".")] += rows
    return "; ".join(f"cannot be read (rows: {rows}): expected {cure}" for cure, rows in cures.items())


def _varying(column: Column) -> str | None:
    """Why a column is none of the patient's."""
    if not column.varying or _few_vary(column):
        return None
    return (
        f"differs between the rows of a patient (patients: {column.varying}), but a clinical variable belongs to the "
        "patient; if that is a slip, make the rows agree and take the variable in; take it in on purpose and "
        "check_cohort.py names the rows"
    )


def _few_vary(column: Column) -> bool:
    """Whether the patients whose rows disagree are so few, among those with several rows, that it is a slip."""
    return column.varying < _FEW_VARYING * column.several or 1 == column.varying < column.several


def _leaking(column: Column, guess: Guess, labels: Sequence[str | None]) -> str | None:
    """Why a variable would teach a model to read the answer, or how the study was done."""
    leak = find_leak(guess.values, labels, absence=not column.unreadable)
    if leak is not None:
        return (
            f"SUSPECTED LEAK: {leak}. Is it known before the diagnosis is, and without it? Only then take it in; a "
            "model would learn to read the answer from it"
        )
    if afterwards(column.name):
        return (
            "SUSPECTED LEAK by its name: treatment, response, outcome and follow-up come after the diagnosis. Is it "
            "known before the diagnosis is, and without it? Only then take it in"
        )
    if bookkeeping(column.name):
        return "bookkeeping of a study by its name (a split, cohort or batch), and nothing of the patient"
    return None


def _notes(column: Column, guess: Guess, about: list[str]) -> list[str]:
    """What stands above a variable.

    Args:
        column: its cells.
        guess: its declaration.
        about: notes on its codes.
    """
    notes = [_count(column, guess), *guess.notes, *about]
    if column.varying and _few_vary(column):
        notes.append(f"The rows of one patient disagree (patients: {column.varying}): check_cohort.py names the rows.")
    if column.unreadable:
        text = _unreadable(column.unreadable)
        notes.append(f"{text[0].upper()}{text[1:]}.")
    return notes


def _count(column: Column, guess: Guess) -> str:
    """How much of a variable is known."""
    patients = len(column.cells)
    gaps = patients - len(column.known) - column.hidden
    share = f", {100 * gaps / patients:.0f} %" if gaps else ""
    text = f"Missing: {gaps} of {patients} patients{share}; different values: {guess.different}."
    if column.doubtful:
        words = ", ".join(f'"{word}" ({count})' for word, count in sorted(column.doubtful.items()))
        text += f" Missing by these words, unless they are made levels: {words}."
    return text
