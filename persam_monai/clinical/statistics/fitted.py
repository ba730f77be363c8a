# SPDX-License-Identifier: Apache-2.0
"""Statistics of training records, by which records are filled and standardised."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class FittedStatistics(NamedTuple):
    """What gaps are filled with and what records are standardised by, each float64 ``[F]``.

    Attributes:
        median: of the observed values; 0 for a number that nobody has.
        mean: after filling gaps with the median.
        scale: population standard deviation after filling; 1 for a constant number.
    """

    median: np.ndarray
    mean: np.ndarray
    scale: np.ndarray


def fit_statistics(records: np.ndarray) -> FittedStatistics:
    """Median, mean and scale of every number of the training records.

    As scikit-learn's ``SimpleImputer(strategy="median")`` followed by ``StandardScaler`` have them.

    Args:
        records: ``[P, F]``, one row per patient; NaN where missing.

    Raises:
        ValueError: if ``records`` is no ``[P, F]`` with P at least 1, or infinite somewhere.
    """
    values = np.asarray(records, dtype=np.float64)  # [P, F]
    if values.ndim != 2 or values.shape[0] == 0:
        raise ValueError(f"records must be [P, F] with P at least 1, got {values.shape}.")
    if np.isinf(values).any():
        columns = np.flatnonzero(np.isinf(values).any(axis=0)).tolist()
        raise ValueError(f"records must be finite or NaN, found infinite values in columns {columns}.")
    observed = ~np.isnan(values)
    median = np.zeros(values.shape[1])  # [F]
    for number in np.flatnonzero(observed.any(axis=0)):
        median[number] = np.quantile(values[observed[:, number], number], 0.5)
    filled = np.where(observed, values, median)  # [P, F]
    constant = filled.max(axis=0) == filled.min(axis=0)
    mean = np.where(constant, filled[0], filled.mean(axis=0))
    least = np.finfo(np.float32).tiny  # what is below would be 0 to the network, which divides by it
    return FittedStatistics(median, mean, np.where(constant, 1.0, np.maximum(filled.std(axis=0), least)))
