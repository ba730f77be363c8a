# SPDX-License-Identifier: Apache-2.0
"""The Transformer encoder, in which patches, clinical and class tokens look at one another.

Tokens are in the order patches, clinical, class. Every token sees every real one, except that a class token sees no
class token but itself. Attention never holds a patch × patch matrix. h heads have d = R/h entries each.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.functional import scaled_dot_product_attention

from persam_monai.errors import did_you_mean
from persam_monai.networks.precision import at_least_float32

ATTENTIONS = ("balanced", "standard")

# Dropout inside fused attention holds an N × N matrix on some devices. A larger bag goes without: it has patches
# enough not to depend on single ones.
LARGEST_BAG_WITH_ATTENTION_DROPOUT = 1024


class TokenAssembly(nn.Module):
    """Puts the three kinds of tokens on one scale, says of which kind each is, and lines them up.

    Patches and clinical tokens: LN(LN(x) + LN(e)) and dropout, where e is a learned embedding, one shared by all
    patches and one for each clinical token. Class tokens are learned vectors with a layer-norm alone. There is no
    encoding of position: a bag has no order.

    Tokens and embeddings start from the standard normal distribution. The layer-norms that follow make their length
    immaterial to the output, but not to learning: the shorter a token, the larger its gradient. At unit variance
    tokens learn at the pace of the rest.

    Args:
        width: R, the length of a token.
        clinical_tokens: M.
        classes: C.
        dropout: probability, on patches and clinical tokens.
    """

    def __init__(self, width: int, clinical_tokens: int, classes: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.patch_embedding = nn.Parameter(torch.empty(1, width))
        self.clinical_embedding = nn.Parameter(torch.empty(clinical_tokens, width))
        self.class_tokens = nn.Parameter(torch.empty(classes, width))
        for learned in (self.patch_embedding, self.clinical_embedding, self.class_tokens):
            nn.init.normal_(learned)
        self.patch_norm = nn.LayerNorm(width)
        self.patch_embedding_norm = nn.LayerNorm(width)
        self.patch_sum_norm = nn.LayerNorm(width)
        self.clinical_norm = nn.LayerNorm(width)
        self.clinical_embedding_norm = nn.LayerNorm(width)
        self.clinical_sum_norm = nn.LayerNorm(width)
        self.class_norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, patches: Tensor, clinical: Tensor) -> Tensor:
        """Lines up the tokens of each bag.

        Args:
            patches: ``[B, N, R]``.
            clinical: ``[B, M, R]``.

        Returns:
            ``[B, N + M + C, R]``.
        """
        patches = self.patch_norm(patches) + self.patch_embedding_norm(self.patch_embedding)
        clinical = self.clinical_norm(clinical) + self.clinical_embedding_norm(self.clinical_embedding)
        classes = self.class_norm(self.class_tokens).expand(patches.shape[0], -1, -1)  # [B, C, R]
        patches = self.dropout(self.patch_sum_norm(patches))
        clinical = self.dropout(self.clinical_sum_norm(clinical))
        return torch.cat([patches, clinical, classes], dim=1)  # [B, N + M + C, R]


class EncoderLayer(nn.Module):
    """One layer: x ← LN(x + attention(x)), then x ← LN(x + feed-forward(x)).

    Attention has scale 1/√(R/heads) and the masks of :func:`standard_attention`; the feed-forward
    network is R → F → R with GELU.

    Args:
        width: R, the length of a token.
        clinical_tokens: M.
        classes: C.
        attention: ``"balanced"`` (softmax inside each kind of token, then over the kinds) or ``"standard"``.
        heads: a divisor of ``width``.
        feedforward: F.
        dropout: probability, on attention weights (bags up to 1024 patches), on both sublayers' outputs and inside
            the feed-forward network.

    Raises:
        ValueError: if ``attention`` is unknown or ``heads`` does not divide ``width``.
    """

    def __init__(
        self,
        width: int,
        clinical_tokens: int,
        classes: int,
        attention: str = "balanced",
        heads: int = 8,
        feedforward: int = 512,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if attention not in ATTENTIONS:
            hint = did_you_mean(str(attention), ATTENTIONS)
            raise ValueError(f'attention must be "balanced" or "standard", got "{attention}".{hint}')
        if width % heads:
            raise ValueError(f"heads must divide width: got {heads} heads for a width of {width}.")
        self.balanced = attention == "balanced"
        self.heads = heads
        self.classes = classes
        self.not_patches = clinical_tokens + classes
        self.attention_dropout = dropout
        self.largest_bag_with_dropout = LARGEST_BAG_WITH_ATTENTION_DROPOUT
        self.query_key_value = nn.Linear(width, 3 * width)  # q, k, v one after the other, each with heads major
        self.attention_out = nn.Linear(width, width)
        self.attention_norm = nn.LayerNorm(width)
        self.feedforward = nn.Sequential(
            nn.Linear(width, feedforward), nn.GELU(), nn.Dropout(dropout), nn.Linear(feedforward, width)
        )
        self.feedforward_norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """One round of looking at one another.

        Args:
            tokens: ``[B, N + M + C, R]`` in the order patches, clinical, class.
            mask: ``[B, N]`` bool, true where there is a patch; ``None`` where all are real.

        Returns:
            ``[B, N + M + C, R]``.
        """
        tokens = self.attention_norm(tokens + self.dropout(self._attend(tokens, mask)))
        return self.feedforward_norm(tokens + self.dropout(self.feedforward(tokens)))

    def _attend(self, tokens: Tensor, mask: Tensor | None) -> Tensor:
        patches = tokens.shape[1] - self.not_patches
        stacked = self.query_key_value(tokens).unflatten(2, [3, self.heads, -1])  # [B, N + M + C, 3, h, d]
        query, key, value = stacked.permute(2, 0, 3, 1, 4).unbind(0)  # [B, h, N + M + C, d] each
        drops = self.training and patches <= self.largest_bag_with_dropout
        dropout = self.attention_dropout if drops else 0.0
        if self.balanced:
            out = balanced_attention(query, key, value, patches, self.classes, mask, dropout)
        else:
            out = standard_attention(query, key, value, patches, self.classes, mask, dropout)
        return self.attention_out(out.transpose(1, 2).flatten(2))  # [B, N + M + C, R]


class Encoder(nn.Module):
    """A stack of :class:`EncoderLayer`.

    Args:
        layers: how many.
        arguments: of each layer.
    """

    def __init__(self, layers: int, *arguments: Any) -> None:
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(*arguments) for _ in range(layers))

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """``[B, N + M + C, R]`` to the same, layer after layer; ``mask`` as in :class:`EncoderLayer`."""
        for layer in self.layers:
            tokens = layer(tokens, mask)
        return tokens


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
    other_out = scaled_dot_product_attention(query[:, :, :others], key, value, other_sees, dropout)
    class_out = scaled_dot_product_attention(query[:, :, others:], key, value, class_sees, dropout)
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
    weights = functional.dropout(weights, dropout)  # [B, h, N + M + C, M + C]
    seen: Tensor | None = None
    if mask is not None:  # an empty bag may look anywhere: its patches weigh nothing
        seen = (mask | ~mask.any(dim=1, keepdim=True))[:, None, None]  # [B, 1, 1, N]
    keys, values = key[:, :, :patches], value[:, :, :patches]  # [B, h, N, d]
    from_patches = scaled_dot_product_attention(query, keys, values, seen, dropout)  # [B, h, N + M + C, d]
    from_few = weights.to(value.dtype) @ value[:, :, patches:]  # [B, h, N + M + C, d]
    return from_few + balance[..., :1].to(value.dtype) * from_patches


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
