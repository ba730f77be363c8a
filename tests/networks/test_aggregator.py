# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from persam_monai.networks.persam import Aggregator

WIDTH, CLINICAL, CLASSES, PATCHES = 6, 2, 3, 5


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value / WIDTH**0.5))


def project(linear: torch.nn.Linear, tokens: Tensor) -> np.ndarray:
    return tokens.numpy() @ linear.weight.detach().numpy().T + linear.bias.detach().numpy()


def test_aggregation_is_what_the_formulas_say_patch_by_patch() -> None:
    aggregator = Aggregator(WIDTH, CLINICAL, CLASSES).double().eval()
    tokens = torch.randn(2, PATCHES + CLINICAL + CLASSES, WIDTH, dtype=torch.float64) * 2
    mask = torch.tensor([[True, False, True, True, False], [True] * 5])
    with torch.no_grad():
        found = aggregator(tokens, mask)
    clinical = range(PATCHES, PATCHES + CLINICAL)
    for bag in range(2):
        q, k, v = (project(linear, tokens[bag]) for linear in (aggregator.query, aggregator.key, aggregator.value))
        pooled = np.zeros(PATCHES)
        for patch in range(PATCHES):
            if not mask[bag, patch]:
                assert not found.explanatory[bag, :, patch].any()
                continue
            psi = np.mean([sigmoid(q[m] @ k[patch]) for m in clinical])
            np.testing.assert_allclose(found.exploratory[bag, patch], psi)
            for label in range(CLASSES):
                at = PATCHES + CLINICAL + label
                phi = np.mean([sigmoid(q[at] @ k[m]) for m in clinical])
                np.testing.assert_allclose(found.class_relevance[bag, label], phi)
                np.testing.assert_allclose(found.class_attention[bag, label, patch], sigmoid(q[at] @ k[patch]))
                explanatory = sigmoid(q[at] @ k[patch]) * phi * psi
                np.testing.assert_allclose(found.explanatory[bag, label, patch], explanatory)
                pooled[patch] = max(pooled[patch], explanatory)
        np.testing.assert_allclose(found.pooled[bag], pooled)
        readout = sum(pooled[patch] / (pooled.sum() + 1e-6) * v[patch] for patch in range(PATCHES))
        np.testing.assert_allclose(found.readout[bag], readout)


def test_without_exploratory_attention_and_relevance_clinical_tokens_do_not_matter() -> None:
    aggregator = Aggregator(WIDTH, CLINICAL, CLASSES, exploratory=False, relevance=False).eval()
    tokens = torch.randn(1, PATCHES + CLINICAL + CLASSES, WIDTH)
    others = tokens.clone()
    others[:, PATCHES : PATCHES + CLINICAL] = torch.randn(1, CLINICAL, WIDTH)
    for one, other in zip(aggregator(tokens), aggregator(others), strict=True):
        assert torch.equal(one, other)
    whole = Aggregator(WIDTH, CLINICAL, CLASSES).eval()
    assert not torch.allclose(whole(tokens).pooled, whole(others).pooled)


def test_gradients_are_right() -> None:
    aggregator = Aggregator(WIDTH, CLINICAL, CLASSES).double().eval()
    tokens = torch.randn(2, PATCHES + CLINICAL + CLASSES, WIDTH, dtype=torch.float64, requires_grad=True)
    mask = torch.tensor([[True, False, True, True, False], [True] * 5])
    assert torch.autograd.gradcheck(lambda some: tuple(aggregator(some, mask)), (tokens,))


def test_half_precision_tokens_get_single_precision_attentions() -> None:
    aggregator = Aggregator(WIDTH, CLINICAL, CLASSES).eval()
    with torch.autocast("cpu", torch.bfloat16):
        found = aggregator(torch.randn(1, 10, WIDTH))
    assert {field.dtype for field in found[1:]} == {torch.float32}
