# SPDX-License-Identifier: Apache-2.0
"""What was found in the slides, as lines and as a table."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence

from persam_monai.checking.check import CheckedSlide
from persam_monai.files import replacing

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


def lines(slides: Sequence[CheckedSlide], micro: str = "µ") -> list[str]:
    """One aligned line per slide.

    Args:
        slides: in the order of the lines.
        micro: for terminals that cannot print µ.
    """
    rows = [row(slide) for slide in slides]
    cells = [[one["slide"], *_facts(one, micro)] for one in rows]
    widths = [max((len(text) for text in column), default=0) for column in zip(*cells, strict=True)]
    result = []
    for one, texts in zip(rows, cells, strict=True):
        known = bool(one["width"])
        aligned = [texts[0].ljust(widths[0])]
        if known:
            aligned += [text.rjust(width) for text, width in zip(texts[1:], widths[1:], strict=True)]
        if one["problem"]:
            aligned.append(f"PROBLEM: {one['problem']}")
        result.append("  ".join(aligned))
    return result


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


def _facts(one: dict[str, str], micro: str) -> list[str]:
    if not one["width"]:
        return [""] * 5
    mpp = one["mpp_x"] if one["mpp_x"] == one["mpp_y"] else f"{one['mpp_x']} x {one['mpp_y']}"
    return [
        f"{one['width']} x {one['height']}",
        f"{mpp} {micro}m/px",
        one["backend"],
        f"{one['tissue_percent']} % tissue",
        f"{one['patches']} patches",
    ]


def _one_line(text: str) -> str:
    return " ".join(text.split())
