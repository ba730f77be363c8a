# SPDX-License-Identifier: Apache-2.0
"""Attention between patches, clinical and class tokens, without ever holding a patch × patch matrix.

Tokens are in the order patches, clinical, class. Every token sees every real one, except that a class token sees no
class token but itself. h heads have d = R/h entries each.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from persam_monai.networks.dropout import dropout as drop
from persam_monai.networks.precision import at_least_float32


def standard_attention(
    query: Tensor, key: Tensor, value: Tensor, patches: int, classes: int, mask: Tensor | None, dropout: float
) -> Tensor:
    """Plain softmax(q·k/√d) over all the tokens that a token may see.

    Args:
        query: ``[B, h, N + M + C, d]``.
        key: like ``query``.
        value: like ``query``.
        patches: N.
        classes: C.
        mask: ``[B, N]`` bool, true where there is a patch; ``None`` where all are real.
        dropout: probability, on attention weights.

    Returns:
        ``[B, h, N + M + C, d]``.
    """
    bags, tokens = query.shape[0], query.shape[2]
    others = tokens - classes
    always = torch.ones((bags, others - patches), dtype=torch.bool, device=query.device)  # clinical tokens
    real = torch.ones((bags, patches), dtype=torch.bool, device=query.device) if mask is None else mask
    seen = torch.cat([real, always], dim=1)[:, None, None]  # [B, 1, 1, N + M]
    itself = torch.eye(classes, dtype=torch.bool, device=query.device).expand(bags, 1, classes, classes)
    class_sees = torch.cat([seen.expand(bags, 1, classes, others), itself], dim=3)  # [B, 1, C, N + M + C]
    other_sees: Tensor | None = None
    if mask is not None:
        other_sees = torch.cat([seen, torch.ones_like(itself[:, :, :1])], dim=3)  # [B, 1, 1, N + M + C]
    other_out = _attention(query[:, :, :others], key, value, other_sees, dropout)
    class_out = _attention(query[:, :, others:], key, value, class_sees, dropout)
    return torch.cat([other_out, class_out], dim=2)  # [B, h, N + M + C, d]


def balanced_attention(
    query: Tensor, key: Tensor, value: Tensor, patches: int, classes: int, mask: Tensor | None, dropout: float
) -> Tensor:
    """Softmax inside each kind of token, weighted by a softmax over the kinds.

    With s = q·k/√d and the kinds K ∈ {patch, clinical, class}: Σ_K β_K Σ_{i∈K} softmax_{i∈K}(s_i) v_i, where β is
    the softmax over the kinds' scores: mean of s over real patches, mean of s over clinical tokens, maximum of s over
    the class tokens that may be seen. So two clinical tokens are not swamped by a hundred patches.

    The mean of s over patches is q · (mean key)/√d, so patches go through fused attention and memory stays linear.

    Args:
        query: ``[B, h, N + M + C, d]``.
        key: like ``query``.
        value: like ``query``.
        patches: N.
        classes: C.
        mask: ``[B, N]`` bool, true where there is a patch; ``None`` where all are real.
        dropout: probability, on attention weights.

    Returns:
        ``[B, h, N + M + C, d]``.
    """
    scale = query.shape[3] ** -0.5
    few = at_least_float32(query @ key[:, :, patches:].transpose(2, 3)) * scale  # [B, h, N + M + C, M + C]
    clinical = few[..., :-classes]  # [B, h, N + M + C, M]
    itself = few[..., -classes:].masked_fill(_other_classes(query, classes), -float("inf"))  # [B, h, N + M + C, C]
    patch_score = _mean_logit(query, key[:, :, :patches], mask) * scale  # [B, h, N + M + C, 1]
    scores = torch.cat([patch_score, clinical.mean(3, keepdim=True), itself.amax(3, keepdim=True)], dim=3)
    balance = scores.softmax(dim=3)  # [B, h, N + M + C, 3]
    weights = torch.cat([clinical.softmax(3) * balance[..., 1:2], itself.softmax(3) * balance[..., 2:]], dim=3)
    weights = drop(weights, dropout)  # [B, h, N + M + C, M + C]
    seen: Tensor | None = None
    if mask is not None:  # an empty bag may look anywhere: its patches weigh nothing
        seen = (mask | ~mask.any(dim=1, keepdim=True))[:, None, None]  # [B, 1, 1, N]
    from_patches = _attention(query, key[:, :, :patches], value[:, :, :patches], seen, dropout)  # [B, h, N + M + C, d]
    from_few = weights.to(value.dtype) @ value[:, :, patches:]  # [B, h, N + M + C, d]
    return from_few + balance[..., :1].to(value.dtype) * from_patches


def _attention(query: Tensor, key: Tensor, value: Tensor, seen: Tensor | None, dropout: float) -> Tensor:
    """Fused attention; with dropout on a CPU, where the fused one would be none, plain attention."""
    if dropout == 0 or query.device.type != "cpu":
        return functional.scaled_dot_product_attention(query, key, value, seen, dropout)
    logits = at_least_float32(query * query.shape[3] ** -0.5 @ key.transpose(2, 3))
    if seen is not None:
        logits = logits.masked_fill(~seen, -float("inf"))
    return drop(logits.softmax(dim=3).to(value.dtype), dropout) @ value


def _other_classes(query: Tensor, classes: int) -> Tensor:
    """``[N + M + C, C]`` bool: true where a class token would look at another one."""
    hidden = torch.zeros((query.shape[2], classes), dtype=torch.bool, device=query.device)
    hidden[-classes:] = ~torch.eye(classes, dtype=torch.bool, device=query.device)
    return hidden


def _mean_logit(query: Tensor, key: Tensor, mask: Tensor | None) -> Tensor:
    """Mean over real patches of q·k, ``[B, h, N + M + C, 1]``; −∞ where a bag has none."""
    if mask is None:
        mean_key = at_least_float32(key).mean(dim=2, keepdim=True)  # [B, h, 1, d]
        return at_least_float32(query @ mean_key.to(query.dtype).transpose(2, 3))
    real = mask[:, None, :, None]  # [B, 1, N, 1]
    count = real.sum(dim=2, keepdim=True)  # [B, 1, 1, 1]
    total = torch.where(real, at_least_float32(key), 0.0).sum(dim=2, keepdim=True)  # [B, h, 1, d]
    mean_key = (total / count.clamp(min=1)).to(query.dtype)
    return at_least_float32(query @ mean_key.transpose(2, 3)).masked_fill(count == 0, -float("inf"))
