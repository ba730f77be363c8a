# SPDX-License-Identifier: Apache-2.0
"""One row of the cohort table, validated."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

_FOLD = re.compile(r"([0-9]{1,6})(?:[.,]0)?")  # pandas writes 1.0 when cells of the column are empty


@dataclass(frozen=True)
class SlideEntry:
    """A slide and what is known of its patient.

    The printed form leaves out the patient and the slide's name: entries may end in logs.

    Args:
        slide: the cell's text; the slide's name in all outputs.
        path: the slide file, absolute; of a slide of several files, the one by which it is opened.
        patient_id: identifier of the patient, who may have several slides.
        label: index into the classes, or None when unknown.
        clinical: encoded record, float32 ``[schema.size]``, NaN for missing; the same for all slides of a patient.
        mpp: micrometres per pixel that override the slide's own, or None.
        fold: the table's fold, or None.
        row: the row's number in the table; the header is row 1 (a Parquet file has none, and counts records from 1).
    """

    slide: str = field(repr=False)
    path: Path = field(repr=False)
    patient_id: str = field(repr=False)
    label: int | None = field(repr=False)
    clinical: np.ndarray = field(repr=False, compare=False)
    mpp: float | None
    fold: int | None
    row: int


def parse_fold(text: str) -> int | None:
    """The fold that a text says, from 0; None if it is no whole number.

    Example:
        >>> [parse_fold(text) for text in ("2", "2.0", "2.5", "")]
        [2, 2, None, None]
    """
    match = _FOLD.fullmatch(text)
    return int(match[1]) if match else None
