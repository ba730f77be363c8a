# SPDX-License-Identifier: Apache-2.0
"""The slides that an extraction or an inference goes through: of a table, of a part of it, or a single slide."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from persam_monai.clinical import ClinicalSchema
from persam_monai.cohort import Cohort, SlideEntry, find_table
from persam_monai.errors import UserError
from persam_monai.model import ModelCard
from persam_monai.settings import check_settings
from persam_monai.slide_files import slide_path, without_ending

logger = logging.getLogger(__name__)


def new_slides(
    card: ModelCard,
    dataset_dir: str,
    table: str | None = None,
    slide: str | None = None,
    record: Mapping[str, Any] | None = None,
    slide_mpp: float | None = None,
    problems_file: str | None = None,
    require_slides: bool = True,
    part: str | None = None,
    decimal: str | None = None,
) -> Cohort:
    """The slides to predict, with their records as the model's own schema reads them.

    Args:
        card: of the trained model.
        dataset_dir: folder of the table.
        table: its name (``None``: the only ``cohort.*`` there is); the ``label`` column may be absent.
        slide: one slide instead of a table.
        record: the clinical record that goes with ``slide``, variable name to value; absent variables are missing.
        slide_mpp: µm per level-0 pixel of ``slide`` if the file does not say.
        problems_file: where the problems of the table are listed, if it has any.
        require_slides: False where the slides' features are read and the slides need not be there.
        part: see :func:`part_of`.
        decimal: the table's decimal sign, if it is another one than the schema's.
    """
    if slide is None:
        if record is not None:
            raise UserError("--record goes with --slide; for many slides put the records into the table.")
        path = find_table(Path(dataset_dir), table)
        try:
            cohort = Cohort.load(path, card.schema, False, problems_file, require_slides, decimal)
        except UserError as error:
            raise UserError(
                f"{error}\nThe schema is the model's own, in {card.path.with_suffix('.json')}; a clinical.yaml beside "
                "the table is not read. Correct the cells, or leave them empty where the value is not known."
            ) from error
        return part_of(cohort, part)
    if record is None:
        logger.warning("No --record is given: the model predicts from the slide alone, all clinical values missing.")
    clinical = card.schema.encode({} if record is None else _record(record), "--record")
    entry = _single_slide(slide, clinical, slide_mpp, require_slides)
    return part_of(Cohort((entry,), card.schema, "--slide"), part)


def slides_to_extract(
    dataset_dir: str,
    table: str | None = None,
    slide: str | None = None,
    slide_mpp: float | None = None,
    problems_file: str | None = None,
    part: str | None = None,
) -> Cohort:
    """The slides of a table, or one slide, whose features are to be extracted.

    Args:
        dataset_dir: folder of the table.
        table: its name (``None``: the only ``cohort.*`` there is); of its columns, ``slide`` and ``mpp`` are read.
        slide: one slide instead of a table.
        slide_mpp: µm per level-0 pixel of ``slide`` if the file does not say.
        problems_file: where the problems of the table are listed, if it has any.
        part: see :func:`part_of`.
    """
    if slide is None:
        if slide_mpp is not None:
            raise UserError("--slide_mpp goes with --slide; for many slides, the table may have a column mpp.")
        return part_of(Cohort.load_slides(find_table(Path(dataset_dir), table), problems_file), part)
    check_settings({"slide_mpp": slide_mpp})
    entry = _single_slide(slide, np.empty(0, np.float32), slide_mpp)
    return part_of(Cohort((entry,), ClinicalSchema.without_record(), "--slide"), part)


def part_of(cohort: Cohort, part: str | None) -> Cohort:
    """A part of the slides, so that several processes can share the work.

    Args:
        cohort: all slides.
        part: ``i/n`` takes every n-th patient, beginning with the i-th, with all slides, so that a patient's slides
            vote together; in an extraction every slide counts as a patient. ``None`` takes all.
    """
    numbers = _numbers(part)
    if numbers is None:
        return cohort
    number, parts = numbers
    patients = list(dict.fromkeys(entry.patient_id for entry in cohort.entries))
    chosen = set(patients[number - 1 :: parts])
    if not chosen:
        raise UserError(f"--part {part} is empty: {cohort.source} has {len(patients)} slides or patients to divide.")
    return replace(cohort, entries=tuple(entry for entry in cohort.entries if entry.patient_id in chosen))


def part_dir(folder: str, part: str | None) -> str:
    """Where the outputs of a part go: ``folder/part_3_of_8``, or ``folder`` itself where there are no parts."""
    numbers = _numbers(part)
    return str(folder) if numbers is None else str(Path(str(folder), "part_{}_of_{}".format(*numbers)))


def _numbers(part: str | None) -> tuple[int, int] | None:
    """Number of a part and number of parts."""
    if part is None:
        return None
    match = re.fullmatch(r"([0-9]+)/([0-9]+)", str(part))
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise UserError(f"part is {part!r}; expected i/n with i from 1 to n, such as 3/8.")
    return int(match[1]), int(match[2])


def _single_slide(slide: str, clinical: np.ndarray, mpp: float | None, required: bool = True) -> SlideEntry:
    """The slide that is named on the command line."""
    path = slide_path(slide)
    if required and not os.path.isfile(path):
        raise UserError(f"--slide {slide}: there is no such file, and no folder that is one DICOM slide.")
    return SlideEntry(slide, path, without_ending(Path(slide).name), None, clinical, mpp, None, 1)


def _record(typed: object) -> Mapping[str, Any]:
    """A record from the command line. Python Fire leaves as text what it cannot read, such as ``{crp: <5}``."""
    values = typed
    if isinstance(typed, str):
        with suppress(yaml.YAMLError):
            values = yaml.load(typed, Loader=yaml.BaseLoader)  # all values are text, as in a table
    if not isinstance(values, Mapping):
        raise UserError(
            f'--record is {typed!r}; expected values by name, such as --record "{{age: 61, sex: female}}". Values with '
            "signs need quotes: \"{crp: '<5'}\"."
        )
    return values
