# SPDX-License-Identifier: Apache-2.0
"""What was found in the slides, as lines and as a table."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence

from persam_monai.checking.check import CheckedSlide
from persam_monai.files import replacing
from persam_monai.screen import text_table

COLUMNS = ("slide", "width", "height", "mpp_x", "mpp_y", "backend", "tissue_percent", "patches", "problem")


def row(slide: CheckedSlide) -> dict[str, str]:
    """The values of a slide as text; empty where they are not known."""
    values = dict.fromkeys(COLUMNS, "")
    values.update(slide=_one_line(slide.name), problem=_one_line(slide.problem or ""))
    if slide.index is not None:
        header = slide.index.header
        width, height = header.levels[0].dimensions
        values.update(
            width=str(width),
            height=str(height),
            mpp_x=f"{header.mpp[0]:.4g}",
            mpp_y=f"{header.mpp[1]:.4g}",
            backend=header.backend,
            tissue_percent=f"{slide.tissue:.1%}".removesuffix("%"),
            patches=str(slide.patches),
        )
    return values


def lines(slides: Sequence[CheckedSlide]) -> list[str]:
    """A table for the terminal, a line per slide."""
    rows = []
    for values in map(row, slides):
        known = bool(values["width"])
        mpp = " x ".join(dict.fromkeys((values["mpp_x"], values["mpp_y"])))
        size, tissue = f"{values['width']} x {values['height']}", f"{values['tissue_percent']} %"
        facts = [size, mpp, values["backend"], tissue, values["patches"]] if known else [""] * 5
        rows.append([values["slide"], *facts, values["problem"]])
    return text_table(["slide", "size", "mpp", "backend", "tissue", "patches", "problem"], rows, right=(1, 2, 4, 5))


def summary(slides: Sequence[CheckedSlide]) -> str:
    """How many slides can be used and what they give."""
    usable = [slide for slide in slides if slide.problem is None]
    patches = sum(slide.patches for slide in usable)
    with_problems = len(slides) - len(usable)
    return (
        f"{len(slides)} slide{'' if len(slides) == 1 else 's'}: {len(usable)} usable with {patches} patches in all, "
        f"{with_problems or 'none'} with problems."
    )


def write_table(path: str | os.PathLike[str], slides: Sequence[CheckedSlide]) -> None:
    """Write what the lines say as CSV, whole or not at all.

    Raises:
        UserError: if the file cannot be written.
    """
    with replacing(path) as partial, partial.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(row(slide) for slide in slides)


def _one_line(text: str) -> str:
    return " ".join(text.split())
