# SPDX-License-Identifier: Apache-2.0
"""Tables as people keep them: text, Excel and Parquet, with the row numbers that their programs show."""

from __future__ import annotations

from persam_monai.cohort.tables.choice import TABLE_NAMES, find_table, read_table
from persam_monai.cohort.tables.table import CellFault, Table, TableRow, as_text

__all__ = ["TABLE_NAMES", "CellFault", "Table", "TableRow", "as_text", "find_table", "read_table"]
