# SPDX-License-Identifier: Apache-2.0
"""Missing values of the clinical record: which variables they belong to, and what their absence says."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from persam_monai.errors import did_you_mean

MISSING = ("median", "learned")


def variable_sizes(groups: Sequence[int], variables: Sequence[Sequence[int]] | None) -> list[list[int]]:
    """How many numbers of the record each variable has, group after group.

    Args:
        groups: how many numbers each group has.
        variables: the same, by variable; ``None`` if every number is a variable of its own.

    Raises:
        ValueError: if a variable has no number, or the variables' numbers are not those of ``groups``.
    """
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


def check_missing(missing: str, dropout: float) -> None:
    """Refuse what cannot be done about missing values.

    Args:
        missing: one of :data:`MISSING`.
        dropout: probability of a variable, and of a group, to be treated as missing in training.

    Raises:
        ValueError: if ``missing`` is unknown or ``dropout`` is not in [0, 1).
    """
    if missing not in MISSING:
        raise ValueError(
            f'missing must be one of {", ".join(MISSING)}, got "{missing}".{did_you_mean(missing, MISSING)}'
        )
    if not 0 <= dropout < 1:
        raise ValueError(f"clinical_dropout must be at least 0 and below 1, got {dropout}.")


class MissingTokens(nn.Module):
    """What the network learns about the absence of values: added to, or instead of, a group's token.

    Each variable has a vector that is added to its group's token where the variable is missing, so that a filled-in
    value is not taken for a measured one. They start at 0: at first, filling in is all there is. Each group has a
    token that takes the place of its own where none of its variables is known. These start from the standard normal
    distribution, as do the learned tokens of :class:`~persam_monai.networks.tokens.TokenAssembly`, and for its reasons:
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
