# SPDX-License-Identifier: Apache-2.0
"""What an inference is asked about: a table of new slides, or one slide and its record."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from persam_monai.cohort import Cohort, SlideEntry, find_table
from persam_monai.cohort.tables import TABLE_NAMES
from persam_monai.errors import UserError
from persam_monai.model import ModelCard
from persam_monai.settings import is_null, or_none
from persam_monai.slide_files import slide_path, without_ending

logger = logging.getLogger(__name__)


class _Record(yaml.BaseLoader):
    """Reads a record as Python Fire does: numbers without quotes are numbers, everything else is text."""


_Record.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[+-]?(?:0|[1-9][0-9]*)(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?\Z"),
    list("+-0123456789"),
)
_Record.add_constructor("tag:yaml.org,2002:float", lambda loader, node: float(node.value))


def new_slides(
    card: ModelCard,
    dataset_dir: str,
    table: str | None = None,
    slide: str | None = None,
    record: Mapping[str, Any] | None = None,
    slide_mpp: float | None = None,
    problems_file: str | None = None,
    require_slides: bool = True,
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

    Raises:
        UserError: if neither can be read.
    """
    if is_null(slide):
        if not is_null(record):
            raise UserError("--record goes with --slide; for many slides put the records into the table.")
        found = table_of(dataset_dir, table)
        try:
            return Cohort.load(
                found, card.schema, require_labels=False, problems_file=problems_file, require_slides=require_slides
            )
        except UserError as error:
            raise UserError(
                f"{error}\nThe schema is the model's own, in {card.path.with_suffix('.json')}; a clinical.yaml beside "
                "the table is not read. Correct the cells, or leave them empty where the value is not known."
            ) from error
    if is_null(record):
        logger.warning("No --record is given: the model predicts from the slide alone, all clinical values missing.")
    values = {} if is_null(record) else _record(record)
    clinical = card.schema.encode(values, "--record")
    entry = single_slide(str(slide), clinical, or_none(slide_mpp), require_slides)
    return Cohort((entry,), card.schema, "--slide")


def table_of(dataset_dir: str, table: str | None = None) -> Path:
    """The table of a folder, where a single slide would do as well.

    Raises:
        UserError: if there is none, or there are several.
    """
    found = find_table(Path(str(dataset_dir)), table)
    if found is None:
        raise UserError(
            f"{dataset_dir}: found no cohort table, expected one of {', '.join(TABLE_NAMES)}. Put it there, name it "
            "with --table, or name one slide with --slide."
        )
    return found


def single_slide(slide: str, clinical: np.ndarray, mpp: float | None, required: bool = True) -> SlideEntry:
    """The slide that is named on the command line.

    Raises:
        UserError: if it is required and not there.
    """
    path = slide_path(slide)
    if required and not os.path.isfile(path):
        raise UserError(f"--slide {slide}: there is no such file, and no folder that is one DICOM slide.")
    return SlideEntry(slide, path, without_ending(Path(slide).name), None, clinical, mpp, None, 1)


def _record(typed: object) -> Mapping[str, Any]:
    """A record from the command line. Python Fire leaves as text what it cannot read, such as ``{albumin: 40 g/L}``."""
    found = typed
    if isinstance(typed, str):
        with suppress(yaml.YAMLError):
            found = yaml.load(typed, Loader=_Record)
    if not isinstance(found, Mapping):
        raise UserError(
            f'--record is {typed!r}; expected values by name, such as --record "{{age: 61, sex: female}}". Values with '
            "signs need quotes: \"{albumin: '40 g/L', crp: '<5'}\"."
        )
    return found
