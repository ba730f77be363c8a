# SPDX-License-Identifier: Apache-2.0
"""Cross-validated comparison of networks: parts, statistics, personalisation, report."""

from persam_monai.study.comparison import run_study
from persam_monai.study.parts import Part, Study, collect, run_parts

__all__ = ["Part", "Study", "collect", "run_parts", "run_study"]
