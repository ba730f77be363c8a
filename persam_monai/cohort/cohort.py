# SPDX-License-Identifier: Apache-2.0
"""The cohort: validated slides, their patients, labels and clinical records."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from persam_monai.clinical import ClinicalSchema
from persam_monai.cohort.reading import SlideEntry, read_entries, read_slides
from persam_monai.cohort.tables import find_table, read_table

SCHEMA_FILE = "clinical.yaml"


@dataclass(frozen=True)
class Cohort:
    """Slides of a study, each with its patient.

    Args:
        entries: one per slide, in the order of the table.
        schema: classes and clinical variables.
        source: the table, for messages.
    """

    entries: tuple[SlideEntry, ...]
    schema: ClinicalSchema
    source: str = "the cohort"

    @classmethod
    def load(
        cls,
        table: str | Path,
        schema: ClinicalSchema,
        require_labels: bool = True,
        problems_file: str | Path | None = None,
        require_slides: bool = True,
        decimal: str | None = None,
    ) -> Cohort:
        """Read and check a cohort table.

        Args:
            table: text in UTF-8 (``.csv``, ``.tsv``), Excel workbook (``.xlsx``) or Parquet file with the columns
                ``patient_id``, ``slide``, ``label``, the variables of the schema, and perhaps ``fold`` and ``mpp``;
                further columns are ignored.
            schema: classes and clinical variables.
            require_labels: False for inference, where labels may be absent.
            problems_file: gets all problems by column and row, without the cells; ``None``: no file. One from an
                earlier time is removed if there are none; any other file is left alone.
            require_slides: False where the slide files need not be there.
            decimal: the table's decimal sign, ``"."`` or ``","``, if it is another one than the schema's.

        Raises:
            UserError: with all problems of the table: row, column, what was found, what was expected.
        """
        content = read_table(table)
        file = None if problems_file is None else Path(problems_file)
        entries = read_entries(content, schema, require_labels, require_slides, decimal, file)
        return cls(entries, schema, str(table))

    @classmethod
    def load_dir(
        cls,
        dataset_dir: str | Path,
        require_labels: bool = True,
        table: str | Path | None = None,
        problems_file: str | Path | None = None,
        require_slides: bool = True,
        decimal: str | None = None,
        schema: str | Path | None = None,
    ) -> Cohort:
        """Read ``clinical.yaml`` and the cohort table of a folder.

        Args:
            dataset_dir: the folder.
            require_labels: see :meth:`load`.
            table: the table in the folder; ``None``: the one ``cohort.csv``, ``.tsv``, ``.xlsx`` or ``.parquet``.
            problems_file: see :meth:`load`.
            require_slides: see :meth:`load`.
            decimal: see :meth:`load`.
            schema: the schema's file; ``None``: ``clinical.yaml`` of the folder.

        Raises:
            UserError: if the folder or a file is missing, there are several tables, and as :meth:`load` and
                :meth:`ClinicalSchema.load` do.
        """
        folder = Path(dataset_dir)
        path = find_table(folder, table)
        loaded = ClinicalSchema.load(folder / SCHEMA_FILE if schema is None else schema)
        return cls.load(path, loaded, require_labels, problems_file, require_slides, decimal)

    @classmethod
    def load_slides(
        cls, table: str | Path, problems_file: str | Path | None = None, require_slides: bool = True
    ) -> Cohort:
        """The slides of a table: of its columns, ``slide`` and ``mpp`` alone are read and can be wrong.

        Args:
            table: as of :meth:`load`; no other column has to be there. Rows with the same slide and the same ``mpp``
                count once.
            problems_file: see :meth:`load`.
            require_slides: see :meth:`load`.

        Returns:
            Entries without patients (each counts as its own), labels and records.

        Raises:
            UserError: with all problems of the two columns.
        """
        file = None if problems_file is None else Path(problems_file)
        entries = read_slides(read_table(table), require_slides, file)
        return cls(entries, ClinicalSchema.without_record(), str(table))

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
