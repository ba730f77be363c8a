# SPDX-License-Identifier: Apache-2.0
"""What is taken from the training records, and what is unusual about a new one beside them."""

from __future__ import annotations

from persam_monai.clinical.statistics.fitted import FittedStatistics, fit_statistics
from persam_monai.clinical.statistics.records import NOTHING_KNOWN, RecordStatistics
from persam_monai.clinical.statistics.variable import VariableStatistics

__all__ = ["NOTHING_KNOWN", "FittedStatistics", "RecordStatistics", "VariableStatistics", "fit_statistics"]
