# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
import torch

from persam_monai.networks.encoder import balanced_attention, standard_attention

BAGS, HEADS, PATCHES, CLINICAL, CLASSES, SIZE = 2, 2, 5, 2, 3, 4
TOKENS = PATCHES + CLINICAL + CLASSES


def softmax(values: np.ndarray) -> np.ndarray:
    exponentials = np.exp(values - values.max())
    return exponentials / exponentials.sum()


def by_hand(
    query: np.ndarray, key: np.ndarray, value: np.ndarray, real: np.ndarray, at: int, balanced: bool
) -> np.ndarray:
    """What the token ``at`` of one bag and head reads, token by token as the formulas say."""
    logits = np.array([query[at] @ key[other] / SIZE**0.5 for other in range(TOKENS)])
    first_class = PATCHES + CLINICAL
    patches = [other for other in range(PATCHES) if real[other]]
    clinical = list(range(PATCHES, first_class))
    classes = [other for other in range(first_class, TOKENS) if at < first_class or other == at]
    if not balanced:
        seen = patches + clinical + classes
        return softmax(logits[seen]) @ value[seen]
    kinds = [kind for kind in (patches, clinical, classes) if kind]
    scores = [logits[kind].max() if kind is classes else logits[kind].mean() for kind in kinds]
    read = np.zeros(SIZE)
    for weight, kind in zip(softmax(np.array(scores)), kinds, strict=True):
        read += weight * (softmax(logits[kind]) @ value[kind])
    return read


@pytest.mark.parametrize("real", [None, [[1, 0, 1, 1, 0], [1, 1, 1, 1, 1]], [[0, 0, 0, 0, 0], [0, 0, 1, 0, 0]]])
def test_attention_is_what_the_formulas_say_token_by_token(attention: str, real: list[list[int]] | None) -> None:
    query, key, value = torch.randn(3, BAGS, HEADS, TOKENS, SIZE, dtype=torch.float64) * 2
    mask = None if real is None else torch.tensor(real, dtype=torch.bool)
    attend = balanced_attention if attention == "balanced" else standard_attention
    found = attend(query, key, value, PATCHES, CLASSES, mask, 0.0)
    for bag in range(BAGS):
        seen = np.ones(PATCHES, dtype=bool) if mask is None else mask[bag].numpy()
        for head in range(HEADS):
            q, k, v = (tensor[bag, head].numpy() for tensor in (query, key, value))
            for at in range(TOKENS):
                expected = by_hand(q, k, v, seen, at, attention == "balanced")
                np.testing.assert_allclose(found[bag, head, at].numpy(), expected, rtol=1e-10, atol=1e-12)


def test_clinical_tokens_keep_their_weight_in_large_bags() -> None:
    query, key = torch.zeros(2, 1, 1, 1000 + CLINICAL + CLASSES, SIZE)
    is_clinical = torch.zeros(1, 1, 1000 + CLINICAL + CLASSES, SIZE)
    is_clinical[:, :, 1000 : 1000 + CLINICAL] = 1
    weight = balanced_attention(query, key, is_clinical, 1000, CLASSES, None, 0.0)
    torch.testing.assert_close(weight, torch.full_like(weight, 1 / 3))  # one kind of three, all alike


def test_dropout_keeps_the_mean(attention: str) -> None:
    query, key = torch.randn(2, 1, 1, TOKENS, SIZE)
    attend = balanced_attention if attention == "balanced" else standard_attention
    ones = torch.ones(4000, 1, TOKENS, SIZE)
    query, key = query.expand_as(ones), key.expand_as(ones)
    found = attend(query, key, ones, PATCHES, CLASSES, None, 0.1)
    assert found.std() > 0.01
    torch.testing.assert_close(found.mean(dim=0), torch.ones(1, TOKENS, SIZE), rtol=0, atol=0.03)
