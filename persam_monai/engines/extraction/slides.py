# SPDX-License-Identifier: Apache-2.0
"""Which slides an extraction goes through."""

from __future__ import annotations

import numpy as np

from persam_monai.clinical import ClinicalSchema
from persam_monai.cohort import Cohort, load_slides
from persam_monai.engines.new_slides import single_slide, table_of
from persam_monai.errors import UserError
from persam_monai.settings import check_settings, is_null, or_none, whole


def slides_to_extract(
    dataset_dir: str,
    table: str | None = None,
    slide: str | None = None,
    slide_mpp: float | None = None,
    problems_file: str | None = None,
) -> Cohort:
    """The slides of a table, or one slide.

    Args:
        dataset_dir: folder of the table.
        table: its name (``None``: the only ``cohort.*`` there is); of its columns, ``slide`` and ``mpp`` are read.
        slide: one slide instead of a table.
        slide_mpp: µm per level-0 pixel of ``slide`` if the file does not say.
        problems_file: where the problems of the table are listed, if it has any.

    Raises:
        UserError: if the table or the slide cannot be read.
    """
    if is_null(slide):
        if not is_null(slide_mpp):
            raise UserError("--slide_mpp goes with --slide; for many slides, the table may have a column mpp.")
        return load_slides(table_of(dataset_dir, table), problems_file)
    check_settings({"slide_mpp": slide_mpp})
    nothing = np.empty(0, np.float32)
    entry = single_slide(str(slide), nothing, or_none(slide_mpp))
    return Cohort((entry,), ClinicalSchema((), {}), "--slide")


def patches_at_once(extractor_batch: object) -> int:
    """The setting ``extractor_batch`` of an extraction, which knows no null as a training does.

    Raises:
        UserError: if it is no number of patches.
    """
    rule = whole(1)
    if not isinstance(extractor_batch, int) or not rule.admits(extractor_batch):
        raise UserError(f"extractor_batch is {extractor_batch!r}; expected {rule.expected}.")
    return extractor_batch
