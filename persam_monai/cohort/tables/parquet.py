# SPDX-License-Identifier: Apache-2.0
"""Tables in Parquet files, the records counted from 1."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from persam_monai.clinical.cells import tidy
from persam_monai.cohort.tables.table import CellFault, Table, TableRow, check_filled
from persam_monai.errors import UserError

_PLAIN = (str, bool, int, float)
_EXTENSION = b"ARROW:extension:name"  # in a column's metadata where the library with its type is not loaded


def read_parquet(path: Path) -> Table:
    """Read a Parquet file.

    Numbers, truth values and dates stay what they are; text loses the spaces around it; nulls are empty cells.

    Raises:
        UserError: if the file is no Parquet file or has no records.
    """
    try:
        table = _read(path)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise UserError(
            f"{path}: not a readable Parquet file ({type(error).__name__}); write it again, or give the table the "
            "ending of its format."
        ) from error
    check_filled(path, table.columns, table.rows)
    return table


def _read(path: Path) -> Table:
    with pq.ParquetFile(path) as file:
        content = file.read()
    names = tuple(tidy(name) for name in content.column_names)
    faults: dict[str, CellFault] = {}
    columns: list[list[object]] = []
    for name, column, field in zip(names, content.columns, content.schema, strict=True):
        if _is_unreadable(column.type) or _EXTENSION in (field.metadata or {}):
            faults[name] = CellFault(f"the type {column.type}", "text, numbers, truth values or dates")
            columns.append([None] * len(column))
        else:
            columns.append([_cell(value, column.type) for value in column.to_pylist()])
    rows = tuple(
        TableRow(number, {name: cell for name, cell in zip(names, cells, strict=True) if name})
        for number, cells in enumerate(zip(*columns, strict=True), start=1)
        if any(cell not in (None, "") for cell in cells)
    )
    return Table(path, names, rows, faults=faults)


def _is_unreadable(kind: Any) -> bool:
    """Whether values of a type are nothing that a person would read off a table; a type of its own may be anything."""
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    tests = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary, pa.types.is_binary_view)
    return isinstance(kind, pa.BaseExtensionType) or pa.types.is_nested(kind) or any(test(kind) for test in tests)


def _cell(value: Any, kind: Any) -> object:
    """A value as :class:`~persam_monai.cohort.tables.TableRow` has it."""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, float) and (pa.types.is_float32(kind) or pa.types.is_float16(kind)):
        # 0.1 as it was meant, not 0.10000000149: limits of ranges are exact
        narrow = np.float32(value) if pa.types.is_float32(kind) else np.float16(value)
        return float(str(narrow))
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if value is None or isinstance(value, _PLAIN) or hasattr(value, "isoformat") or hasattr(value, "total_seconds"):
        return value
    return str(value)  # such as a UUID
