# SPDX-License-Identifier: Apache-2.0
"""The Transformer encoder, in which patches, clinical and class tokens look at one another."""

from __future__ import annotations

from torch import Tensor, nn

from persam_monai.errors import did_you_mean
from persam_monai.networks.dropout import Dropout
from persam_monai.networks.token_attention import balanced_attention, standard_attention

ATTENTIONS = ("balanced", "standard")

# Dropout inside fused attention holds an N × N matrix on some devices. A larger bag goes without: it has patches
# enough not to depend on single ones.
LARGEST_BAG_WITH_ATTENTION_DROPOUT = 1024


class EncoderLayer(nn.Module):
    """One layer: x ← LN(x + attention(x)), then x ← LN(x + feed-forward(x)).

    Attention has scale 1/√(R/heads) and the masks of :mod:`persam_monai.networks.token_attention`; the feed-forward
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
            nn.Linear(width, feedforward), nn.GELU(), Dropout(dropout), nn.Linear(feedforward, width)
        )
        self.feedforward_norm = nn.LayerNorm(width)
        self.dropout = Dropout(dropout)

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
    """A stack of :class:`EncoderLayer`, with the same arguments.

    Args:
        layers: how many.
        width: R, the length of a token.
        clinical_tokens: M.
        classes: C.
        attention: ``"balanced"`` or ``"standard"``.
        heads: a divisor of ``width``.
        feedforward: width of the feed-forward networks' hidden layer.
        dropout: probability.

    Raises:
        ValueError: as :class:`EncoderLayer` does.
    """

    def __init__(
        self,
        layers: int,
        width: int,
        clinical_tokens: int,
        classes: int,
        attention: str = "balanced",
        heads: int = 8,
        feedforward: int = 512,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            EncoderLayer(width, clinical_tokens, classes, attention, heads, feedforward, dropout) for _ in range(layers)
        )

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """``[B, N + M + C, R]`` to the same, layer after layer; ``mask`` as in :class:`EncoderLayer`."""
        for layer in self.layers:
            tokens = layer(tokens, mask)
        return tokens
