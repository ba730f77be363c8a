# SPDX-License-Identifier: Apache-2.0
"""What a network with personalised attention says about one batch of bags."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Attention(NamedTuple):
    """The logits and every attention of the paper, for B bags of N patches and C classes.

    Attentions lie in [0, 1] and are exactly 0 at padded places. A head without personalised attention (a baseline) has
    ``logits``, ``pooled`` and ``mask`` alone: its ``explanatory`` and ``class_attention`` are ``[B, 0, N]``, of no
    class, its ``exploratory`` and ``class_relevance`` ``[B, 0]``.
    """

    logits: Tensor
    """Class logits, ``[B, C]``."""
    explanatory: Tensor
    """a′_lc = a_lc φ_c ψ_l, how much patch l speaks for class c given the record, ``[B, C, N]``."""
    exploratory: Tensor
    """ψ_l, how much the record asks to look at patch l, ``[B, N]``."""
    class_attention: Tensor
    """a_lc, how much class c looks at patch l, ``[B, C, N]``."""
    class_relevance: Tensor
    """φ_c, how much class c has to do with the record, ``[B, C]``."""
    pooled: Tensor
    """max over classes of a′_lc, the weight (before normalisation) of patch l in the bag, ``[B, N]``."""
    mask: Tensor
    """True where there is a patch, ``[B, N]`` bool; a row without any is a bag in which nothing was seen."""
