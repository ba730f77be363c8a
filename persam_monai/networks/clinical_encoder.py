# SPDX-License-Identifier: Apache-2.0
"""The clinical record: imputation and standardisation inside the network, then one token per group of variables."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from persam_monai.errors import UserError


class ClinicalEncoder(nn.Module):
    """Turns a record with gaps into M clinical tokens.

    A missing value (NaN) becomes the median of the training records, then every variable is standardised with their
    mean and standard deviation. These statistics are buffers, fitted once and saved with the weights, so that training
    and serving cannot differ. Each group of variables then has a network of its own: linear d → R/2, ReLU,
    linear → R.

    Args:
        groups: number of variables of each group, in the record's order (the paper: 18 of the interview, 10 of the
            blood test). At least one group: balanced attention and the record's attentions are means over the tokens.
        width: R, the length of a token; even.

    Raises:
        ValueError: if there is no group, a group has no variable, or ``width`` is odd.
    """

    def __init__(self, groups: Sequence[int], width: int = 512) -> None:
        super().__init__()
        if len(groups) == 0 or min(groups) < 1:
            raise ValueError(f"clinical_groups must name at least one group of at least one variable, got {groups}.")
        if width % 2:
            raise ValueError(f"width must be even, got {width}.")
        self.groups = [int(size) for size in groups]
        self.variables = sum(self.groups)
        self.networks = nn.ModuleList(
            nn.Sequential(nn.Linear(size, width // 2), nn.ReLU(), nn.Linear(width // 2, width)) for size in self.groups
        )
        self.median = nn.Buffer(torch.zeros(self.variables))
        self.mean = nn.Buffer(torch.zeros(self.variables))
        self.scale = nn.Buffer(torch.ones(self.variables))
        self.fitted = nn.Buffer(torch.tensor(False))

    def forward(self, clinical: Tensor) -> Tensor:
        """Clinical tokens.

        Args:
            clinical: ``[B, sum(groups)]``, in the units of the records that were fitted; NaN where missing.

        Returns:
            ``[B, M, R]``, one token per group.

        Raises:
            ValueError: if ``clinical`` has another shape.
            RuntimeError: if a record holds a value and the statistics were never fitted. (A record without any value
                has nothing to standardise and always passes.)
        """
        if clinical.dim() != 2 or clinical.shape[1] != self.variables:
            raise ValueError(f"clinical must be [B, {self.variables}] for groups {self.groups}, got {clinical.shape}.")
        missing = clinical.isnan()  # [B, V]
        if not bool(self.fitted) and not bool(missing.all()):
            raise RuntimeError(
                "The clinical encoder has no statistics: call fit(records) with the training fold's records, load "
                "trained weights, or call assume_standardised() for records that are standardised already."
            )
        filled = torch.where(missing, self.median, clinical.to(self.median.dtype))
        groups = ((filled - self.mean) / self.scale).split(self.groups, dim=1)
        tokens: list[Tensor] = []
        for index, network in enumerate(self.networks):
            tokens.append(network(groups[index]))  # [B, R]
        return torch.stack(tokens, dim=1)  # [B, M, R]

    @torch.jit.unused
    @torch.no_grad()
    def fit(self, records: Tensor, refit: bool = False) -> None:
        """Takes median, mean and standard deviation of every variable from the training records.

        The median is that of the observed values. Mean and (population) standard deviation are those after filling
        the gaps with it, as scikit-learn's ``SimpleImputer`` followed by ``StandardScaler`` has them. A constant
        variable has scale 1; a variable nobody has has median 0, mean 0 and scale 1.

        Args:
            records: ``[P, sum(groups)]``, one row per patient of the training fold; NaN where missing.
            refit: replace statistics that are there already.

        Raises:
            UserError: if statistics are there already and ``refit`` is false.
            ValueError: if ``records`` is empty, of another shape, or infinite somewhere.
        """
        if self.fitted and not refit:
            raise UserError(
                "The clinical encoder has its statistics already (from a checkpoint?): other ones would change what "
                "its weights mean. Pass refit=True to replace them."
            )
        if records.dim() != 2 or records.shape[1] != self.variables or records.shape[0] == 0:
            raise ValueError(f"records must be [P, {self.variables}] with P at least 1, got {tuple(records.shape)}.")
        if records.isinf().any():
            columns = records.isinf().any(dim=0).nonzero().flatten().tolist()
            raise ValueError(f"records must be finite or NaN, found infinite values in columns {columns}.")
        values = records.to(device="cpu", dtype=torch.float64)
        median = values.nanquantile(0.5, dim=0).nan_to_num(0.0)  # [V]
        filled = torch.where(values.isnan(), median, values)  # [P, V]
        constant = filled.amax(dim=0) == filled.amin(dim=0)
        mean = torch.where(constant, filled[0], filled.mean(dim=0))
        self._set(median, mean, filled.std(dim=0, correction=0).masked_fill(constant, 1.0))

    @torch.jit.unused
    def assume_standardised(self) -> None:
        """Sets the statistics to the identity: records come standardised, and a missing value is the mean, 0."""
        self._set(torch.zeros(self.variables), torch.zeros(self.variables), torch.ones(self.variables))

    @torch.jit.unused
    def _set(self, median: Tensor, mean: Tensor, scale: Tensor) -> None:
        self.median.copy_(median)
        self.mean.copy_(mean)
        self.scale.copy_(scale)
        self.fitted.fill_(True)
