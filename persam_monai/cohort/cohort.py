# SPDX-License-Identifier: Apache-2.0
"""The cohort: validated slides, their patients, labels and clinical records."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from persam_monai.clinical import ClinicalSchema
from persam_monai.cohort.entry import SlideEntry
from persam_monai.cohort.reading import read_entries
from persam_monai.cohort.report import keep_error
from persam_monai.cohort.tables import TABLE_NAMES, find_table, read_table
from persam_monai.errors import UserError, raise_together
from persam_monai.settings import is_null

SCHEMA_FILE = "clinical.yaml"


@dataclass(frozen=True)
class Cohort:
    """Slides of a study, each with its patient.

    Args:
        entries: one per slide, in the order of the table.
        schema: classes and clinical variables.
        source: the table, for messages.
        coded: of each variable, in how many of the table's cells a missing code stands, where there are any.
    """

    entries: tuple[SlideEntry, ...]
    schema: ClinicalSchema
    source: str = "the cohort"
    coded: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def load(
        cls,
        table_path: str | Path,
        schema: ClinicalSchema,
        require_labels: bool = True,
        problems_file: str | Path | None = None,
        require_slides: bool = True,
    ) -> Cohort:
        """Read and check a cohort table.

        Args:
            table_path: text in UTF-8 (``.csv``, ``.tsv``), Excel workbook (``.xlsx``) or Parquet file with the columns
                ``patient_id``, ``slide``, ``label``, the variables of the schema, and perhaps ``fold`` and ``mpp``;
                further columns are ignored.
            schema: classes and clinical variables.
            require_labels: False for inference, where labels may be absent.
            problems_file: gets all problems by column and row, without the cells; ``None`` (or a text that means it):
                no file. One from an earlier time is removed if there are none; any other file is left alone.
            require_slides: False to check a table before its slides are there.

        Raises:
            UserError: with all problems of the table: row, column, what was found, what was expected.
        """
        path = Path(table_path)
        file = None if is_null(problems_file) else Path(str(problems_file))
        try:
            content = read_table(path, admit_uneven=True)
        except UserError as error:
            keep_error(error, file)
            raise
        entries, coded = read_entries(content, schema, require_labels, require_slides, file)
        return cls(entries, schema, str(path), coded)

    @classmethod
    def load_dir(
        cls,
        dataset_dir: str | Path,
        require_labels: bool = True,
        table: str | Path | None = None,
        problems_file: str | Path | None = None,
        require_slides: bool = True,
    ) -> Cohort:
        """Read ``clinical.yaml`` and the cohort table of a folder.

        Args:
            dataset_dir: the folder.
            require_labels: see :meth:`load`.
            table: the table in the folder; ``None`` (or a text that means it): the one ``cohort.csv``, ``.tsv``,
                ``.xlsx`` or ``.parquet`` that there is.
            problems_file: see :meth:`load`.
            require_slides: see :meth:`load`.

        Raises:
            UserError: if the folder or a file is missing, there are several tables, and as :meth:`load` and
                :meth:`ClinicalSchema.load` do.
        """
        folder = Path(dataset_dir)
        if not os.path.isdir(folder):
            raise UserError(
                f"{folder}: no such folder; expected the dataset folder with {SCHEMA_FILE} and {TABLE_NAMES[0]} "
                "(--dataset_dir names it)."
            )
        path = find_table(folder, table)
        missing = []
        if not os.path.exists(folder / SCHEMA_FILE):
            missing.append(f"{folder / SCHEMA_FILE} (the clinical schema: classes and groups of variables)")
        if path is None:
            others = ", ".join(TABLE_NAMES[1:])
            missing.append(f"{folder / TABLE_NAMES[0]} (the cohort table: one row per slide; or {others})")
        raise_together(f"{folder}: the dataset folder lacks", missing)
        assert path is not None  # or it would be missing
        schema = ClinicalSchema.load(folder / SCHEMA_FILE)
        return cls.load(path, schema, require_labels, problems_file, require_slides)

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self) -> Iterator[SlideEntry]:
        return iter(self.entries)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes; a label is an index into them."""
        return self.schema.classes

    @cached_property
    def _first_of(self) -> dict[str, SlideEntry]:
        """The first entry of each patient; the others agree with it."""
        first: dict[str, SlideEntry] = {}
        for entry in self.entries:
            first.setdefault(entry.patient_id, entry)
        return first

    @property
    def patients(self) -> tuple[str, ...]:
        """Each patient once, in the order of the table."""
        return tuple(self._first_of)

    @property
    def labels(self) -> tuple[int | None, ...]:
        """Label of each slide."""
        return tuple(entry.label for entry in self.entries)

    @cached_property
    def patient_labels(self) -> dict[str, int | None]:
        """Label of each patient: that of any labelled slide."""
        labels: dict[str, int | None] = dict.fromkeys(self.patients)
        labels.update({entry.patient_id: entry.label for entry in self.entries if entry.label is not None})
        return labels

    def class_counts(self) -> list[int]:
        """How many slides each class has; unlabelled slides count nowhere."""
        return [self.labels.count(index) for index in range(len(self.classes))]

    def clinical_matrix(self) -> np.ndarray:
        """Encoded records of ``patients``, each once: float32 ``[patients, schema.size]``, NaN for missing."""
        records = [entry.clinical for entry in self._first_of.values()]
        return np.stack(records) if records else np.empty((0, self.schema.size), dtype=np.float32)

    def subset(self, entries: Iterable[SlideEntry]) -> Cohort:
        """A cohort of some of the entries, with the same schema."""
        return replace(self, entries=tuple(entries))
