# SPDX-License-Identifier: Apache-2.0
"""What happens to slides that cannot be used."""

from __future__ import annotations

import csv
import logging
import os
from pathlib import Path
from typing import NamedTuple

from persam_monai.errors import UserError
from persam_monai.files import replacing
from persam_monai.settings import check_settings

logger = logging.getLogger(__name__)

SKIPPED_FILE = "skipped_slides.csv"
OR_SKIP = "To go on without slides that cannot be read, add --on_bad_slide skip."


class SkippedSlide(NamedTuple):
    """A line of the list."""

    part: str  # what the slide was for: training, validation, test, inference
    slide: str  # as the table has it
    problem: str


class BadSlides:
    """Raises what is wrong with a slide, or lists it and lets the work go on without the slide.

    Args:
        on_bad_slide: ``raise`` or ``skip``.
        folder: where ``skipped_slides.csv`` goes; ``None`` writes no file.
    """

    def __init__(self, on_bad_slide: str = "raise", folder: str | os.PathLike[str] | None = None) -> None:
        check_settings({"on_bad_slide": on_bad_slide})
        self.skip = on_bad_slide == "skip"
        self.file = None if folder is None else Path(folder) / SKIPPED_FILE
        self.skipped: list[SkippedSlide] = []
        self._writing = False

    def add(self, part: str, slide: str, problem: UserError | str) -> None:
        """Deal with a slide.

        Raises:
            UserError: the problem, unless slides are skipped.
        """
        if not self.skip:
            raise UserError(f"{problem} {OR_SKIP}")
        self.skipped.append(SkippedSlide(part, slide, " ".join(str(problem).split())))
        logger.warning("Skipped slide %s (%s): %s", slide, part, problem)
        if self._writing:
            self._write()

    def begin(self, keep: bool = False) -> None:
        """Write the list from now on, in place of an earlier one.

        Args:
            keep: leave an earlier list where it is as long as there is nothing to write.
        """
        self._writing = self.file is not None
        if self.skipped:
            self._write()
        elif self.file is not None and not keep:
            self.file.unlink(missing_ok=True)

    def restore(self, folder: str | os.PathLike[str]) -> None:
        """Take up the list of an earlier part of the same training, if slides are skipped."""
        file = Path(folder) / SKIPPED_FILE
        if not self.skip or not file.is_file():
            return
        try:
            with file.open(newline="", encoding="utf-8") as lines:
                self.skipped = [
                    SkippedSlide(row["part"], row["slide"], row["problem"]) for row in csv.DictReader(lines)
                ]
        except (KeyError, csv.Error, UnicodeDecodeError) as error:
            raise UserError(
                f"{file} is not a list of skipped slides ({error}); expected the columns "
                f"{', '.join(SkippedSlide._fields)}. Mend or remove it; without it all slides are tried again."
            ) from error
        if self.skipped:
            logger.warning(
                "%d slides that were skipped before stay out. To use mended ones again, delete their lines from %s.",
                len(self.skipped),
                file,
            )

    def of(self, part: str) -> dict[str, str]:
        """Problem by slide, of what was skipped in one part."""
        return {line.slide: line.problem for line in self.skipped if line.part == part}

    def _write(self) -> None:
        if self.file is None:
            return
        with replacing(self.file) as partial, partial.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(SkippedSlide._fields)
            writer.writerows(self.skipped)
