# SPDX-License-Identifier: Apache-2.0
"""The clinical record: imputation and standardisation inside the network, then one token per group of variables."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from persam_monai.clinical import fit_statistics
from persam_monai.errors import did_you_mean

MISSING = ("median", "learned")


class ClinicalEncoder(nn.Module):
    """Turns a record with gaps into M clinical tokens.

    A missing value (NaN) becomes the median of the training records, then every number is standardised with their
    mean and standard deviation. These statistics are buffers, fitted once and saved with the weights, so that training
    and serving cannot differ. Each group of variables then has a network of its own: linear d → R/2, ReLU,
    linear → R.

    Args:
        groups: how many numbers of the record belong to each group, in the record's order (the paper: 18 of the
            interview, 10 of the blood test). At least one group: balanced attention and the record's attentions are
            means over the tokens.
        width: R, the length of a token; even.
        missing: ``"median"``, as in the paper: that is all; or ``"learned"``: in addition the tokens are told what was
            filled in, see :class:`MissingTokens`.
        dropout: in [0, 1). In training each variable of each record is treated as missing with this probability and,
            independently, each group as a whole: practice for records with larger gaps. 0 draws no random number.
        variables: how many numbers each variable of each group has (a category of three levels has three, which are
            missing together); ``None`` if every number is a variable. A variable without one of its numbers is missing.

    Raises:
        ValueError: if there is no group, a group has no number, ``width`` is odd, ``missing`` is unknown, ``dropout``
            is out of range, or ``variables`` do not add up to ``groups``.

    Example:
        >>> encoder = ClinicalEncoder([5, 3], 64, missing="learned", variables=[[1, 1, 3], [1, 2]])
        >>> encoder(torch.full((1, 8), torch.nan)).shape
        torch.Size([1, 2, 64])
    """

    def __init__(
        self,
        groups: Sequence[int],
        width: int = 512,
        missing: str = "median",
        dropout: float = 0.0,
        variables: Sequence[Sequence[int]] | None = None,
    ) -> None:
        super().__init__()
        if len(groups) == 0 or min(groups) < 1:
            raise ValueError(f"clinical_groups must name at least one group of at least one variable, got {groups}.")
        if width % 2:
            raise ValueError(f"width must be even, got {width}.")
        if missing not in MISSING:
            raise ValueError(
                f'missing must be one of {", ".join(MISSING)}, got "{missing}".{did_you_mean(missing, MISSING)}'
            )
        if not 0 <= dropout < 1:
            raise ValueError(f"clinical_dropout must be at least 0 and below 1, got {dropout}.")
        sizes = _variable_sizes(groups, variables)
        self.groups = [int(size) for size in groups]
        self.record_size = sum(self.groups)
        self.dropout = float(dropout)
        self.networks = nn.ModuleList(
            nn.Sequential(nn.Linear(size, width // 2), nn.ReLU(), nn.Linear(width // 2, width)) for size in self.groups
        )
        counts = [len(group) for group in sizes]
        self.tokens = MissingTokens(counts, width) if missing == "learned" else None
        self.median = nn.Buffer(torch.zeros(self.record_size))
        self.mean = nn.Buffer(torch.zeros(self.record_size))
        self.scale = nn.Buffer(torch.ones(self.record_size))
        self.fitted = nn.Buffer(torch.tensor(False))
        # Follow from the arguments, so they are not saved: models that were made without them load as they are.
        numbers = torch.tensor([size for group in sizes for size in group])
        group_of = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
        variable_of = torch.arange(sum(counts)).repeat_interleave(numbers)
        self.group_of = nn.Buffer(group_of, persistent=False)  # [V], of each variable
        self.variable_of = nn.Buffer(variable_of, persistent=False)  # [F], of each number

    def forward(self, clinical: Tensor) -> Tensor:
        """Clinical tokens.

        Args:
            clinical: ``[B, F]`` with F = ``sum(groups)``, in the units of the records that were fitted; NaN where
                missing.

        Returns:
            ``[B, M, R]``, one token per group.

        Raises:
            ValueError: if ``clinical`` has another shape.
            RuntimeError: if a record holds a value and the statistics were never fitted. (A record without any value
                has nothing to standardise and always passes.)
        """
        if clinical.dim() != 2 or clinical.shape[1] != self.record_size:
            raise ValueError(
                f"clinical must be [B, {self.record_size}] for groups {self.groups}, got {clinical.shape}."
            )
        missing = clinical.isnan()  # [B, F]
        if not bool(self.fitted) and not bool(missing.all()):
            raise RuntimeError(
                "The clinical encoder has no statistics: call fit(records) with the training fold's records, load "
                "trained weights, or call assume_standardised() for records that are standardised already."
            )
        if self.training and self.dropout > 0:
            missing = missing | self._dropped(clinical)
        filled = torch.where(missing, self.median, clinical.to(self.median.dtype))
        groups = ((filled - self.mean) / self.scale).split(self.groups, dim=1)
        tokens: list[Tensor] = []
        for index, network in enumerate(self.networks):
            tokens.append(network(groups[index]))  # [B, R]
        stacked = torch.stack(tokens, dim=1)  # [B, M, R]
        if self.tokens is not None:
            stacked = self.tokens(stacked, self._variables_of(missing))
        return stacked

    def _dropped(self, clinical: Tensor) -> Tensor:
        """Which numbers of each record chance takes away, bool ``[B, F]``: single variables, and whole groups."""
        variables = len(self.group_of)
        draws = torch.rand((clinical.shape[0], variables + len(self.groups)), device=clinical.device) < self.dropout
        lost = draws[:, :variables] | draws[:, variables:][:, self.group_of]  # [B, V]
        return lost[:, self.variable_of]  # [B, F]

    def _variables_of(self, missing: Tensor) -> Tensor:
        """Which variables lack a number, bool ``[B, V]``, from ``[B, F]``."""
        variables = torch.arange(len(self.group_of), device=missing.device)
        belongs = variables[:, None] == self.variable_of  # [V, F]
        return (missing[:, None] & belongs).any(dim=2)

    @torch.jit.unused
    @torch.no_grad()
    def fit(self, records: Tensor) -> None:
        """Takes median, mean and standard deviation of every number from the training records.

        They are those of :func:`~persam_monai.clinical.statistics.fit_statistics`. Trained weights mean something with
        the statistics that they were trained with alone.

        Args:
            records: ``[P, F]``, one row per patient of the training fold; NaN where missing.

        Raises:
            ValueError: if ``records`` is empty, of another shape, or infinite somewhere.
        """
        if records.dim() != 2 or records.shape[1] != self.record_size or records.shape[0] == 0:
            raise ValueError(f"records must be [P, {self.record_size}] with P at least 1, got {tuple(records.shape)}.")
        fitted = fit_statistics(records.detach().cpu().double().numpy())
        self._set(*(torch.from_numpy(values) for values in (fitted.median, fitted.mean, fitted.scale)))

    @torch.jit.unused
    def assume_standardised(self) -> None:
        """Sets the statistics to the identity: records come standardised, and a missing value is the mean, 0."""
        zeros = torch.zeros(self.record_size)
        self._set(zeros, zeros, torch.ones(self.record_size))

    @torch.jit.unused
    def _set(self, median: Tensor, mean: Tensor, scale: Tensor) -> None:
        self.median.copy_(median)
        self.mean.copy_(mean)
        self.scale.copy_(scale)
        self.fitted.fill_(True)


class MissingTokens(nn.Module):
    """What the network learns about the absence of values: added to, or instead of, a group's token.

    Each variable has a vector that is added to its group's token where the variable is missing, so that a filled-in
    value is not taken for a measured one. They start at 0: at first, filling in is all there is. Each group has a
    token that takes the place of its own where none of its variables is known. These start from the standard normal
    distribution, as do the learned tokens of :class:`TokenAssembly`, and for its reasons:
    a layer-norm follows.

    Args:
        counts: number of variables of each group.
        width: R, the length of a token.
    """

    def __init__(self, counts: Sequence[int], width: int) -> None:
        super().__init__()
        self.counts = [int(count) for count in counts]
        self.absent_variables = nn.Parameter(torch.zeros(sum(self.counts), width))
        self.empty_groups = nn.Parameter(torch.empty(len(self.counts), width))
        nn.init.normal_(self.empty_groups)

    def forward(self, tokens: Tensor, missing: Tensor) -> Tensor:
        """Tokens that know what is missing.

        Args:
            tokens: ``[B, M, R]``.
            missing: ``[B, V]`` bool, of V variables.

        Returns:
            ``[B, M, R]``, in the type of ``tokens``.
        """
        absences = self.absent_variables.split(self.counts)  # M × [V_m, R]
        changed: list[Tensor] = []
        for group, absent in enumerate(missing.split(self.counts, dim=1)):  # [B, V_m]
            token = tokens[:, group] + absent.to(tokens.dtype) @ absences[group].to(tokens.dtype)  # [B, R]
            empty = self.empty_groups[group].to(tokens.dtype)  # [R]
            changed.append(torch.where(absent.all(dim=1, keepdim=True), empty, token))
        return torch.stack(changed, dim=1)  # [B, M, R]


def _variable_sizes(groups: Sequence[int], variables: Sequence[Sequence[int]] | None) -> list[list[int]]:
    """How many numbers of the record each variable has, group after group."""
    if variables is None:
        return [[1] * int(size) for size in groups]
    sizes = [[int(size) for size in group] for group in variables]
    sums = [sum(group) for group in sizes]
    if min((size for group in sizes for size in group), default=1) < 1 or sums != [int(size) for size in groups]:
        raise ValueError(
            "clinical_variables must name the size of each variable, at least 1, and add up to clinical_groups "
            f"{list(groups)} group by group, got {sizes} with the sums {sums}."
        )
    return sizes
