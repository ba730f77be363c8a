# SPDX-License-Identifier: Apache-2.0
"""What missing clinical values cost, and what the network's ways to treat them are worth, on simulated bags."""

from persam_monai.benchmark.missing.bags import Part, draw_parts, record_schema
from persam_monai.benchmark.missing.report import SEEDS, SHARES, measure, table
from persam_monai.benchmark.missing.training import Contender, Effort, accuracy, train

__all__ = [
    "SEEDS",
    "SHARES",
    "Contender",
    "Effort",
    "Part",
    "accuracy",
    "draw_parts",
    "measure",
    "record_schema",
    "table",
    "train",
]
