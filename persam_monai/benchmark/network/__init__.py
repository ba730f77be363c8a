# SPDX-License-Identifier: Apache-2.0
"""How fast the network is, how much memory it takes, and how many parameters it has."""

from persam_monai.benchmark.network.rates import batched_over_single, extractor_over_default, parameters
from persam_monai.benchmark.network.report import PARTS, measure, table
from persam_monai.benchmark.network.steps import NETWORKS, measure_step

__all__ = [
    "NETWORKS",
    "PARTS",
    "batched_over_single",
    "extractor_over_default",
    "measure",
    "measure_step",
    "parameters",
    "table",
]
