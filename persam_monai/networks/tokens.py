# SPDX-License-Identifier: Apache-2.0
"""Assembly of a bag's tokens: patches, then clinical, then class tokens."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from persam_monai.networks.dropout import Dropout


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
        self.dropout = Dropout(dropout)

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
