# SPDX-License-Identifier: Apache-2.0
"""How fast patches come out of a slide: our loader, what is usual, and what the decoder alone could do."""

from persam_monai.benchmark.reading.effort import Effort
from persam_monai.benchmark.reading.report import ENDURANCE, PARTS, measure, table
from persam_monai.benchmark.reading.slides import SIDES

__all__ = ["ENDURANCE", "PARTS", "SIDES", "Effort", "measure", "table"]
