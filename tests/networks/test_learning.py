# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from persam_monai.networks import PersAM, PersAMHead, parameter_groups, seed_weights
from persam_monai.networks.network import HEADS
from tests.networks.conftest import small_head


@pytest.fixture
def network(make_head: Callable[..., PersAMHead]) -> PersAM:
    backbone = nn.Sequential(nn.Conv2d(3, 7, 3), nn.BatchNorm2d(7), nn.AdaptiveAvgPool2d(1), nn.Flatten(1))
    return PersAM(backbone, make_head())


@pytest.mark.parametrize("decay_norms", [True, False])
def test_every_parameter_is_in_exactly_one_group(network: PersAM, decay_norms: bool) -> None:
    groups = parameter_groups(network, decay_norms=decay_norms)
    grouped = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(grouped) == sorted(id(parameter) for parameter in network.parameters())
    torch.optim.SGD(groups, lr=0.0, momentum=0.9, nesterov=True)


def test_parts_learn_at_the_papers_rates(network: PersAM) -> None:
    rates = {id(p): group["lr"] for group in parameter_groups(network) for p in group["params"]}
    for name, parameter in network.named_parameters():
        expected = 1e-4 if name.startswith("extractor") else 4e-6 if "clinical_encoder" in name else 2e-4
        assert rates[id(parameter)] == expected, name
    assert {group["weight_decay"] for group in parameter_groups(network)} == {1e-4}


def test_norms_biases_tokens_and_embeddings_can_go_without_decay(network: PersAM) -> None:
    groups = parameter_groups(network, decay_norms=False)
    decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    exempt = {name for name, parameter in network.named_parameters() if decay[id(parameter)] == 0}
    assert {"head.tokens.class_tokens", "head.tokens.patch_embedding", "head.tokens.clinical_embedding"} <= exempt
    for path, module in network.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            assert f"{path}.weight" not in exempt
            assert f"{path}.bias" in exempt
        if isinstance(module, nn.LayerNorm | nn.BatchNorm2d):
            assert {f"{path}.weight", f"{path}.bias"} <= exempt


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("decay_norms", [True, False])
def test_every_parameter_of_every_head_is_in_exactly_one_group(name: str, decay_norms: bool) -> None:
    head = small_head(name)
    grouped = [id(p) for group in parameter_groups(head, decay_norms=decay_norms) for p in group["params"]]
    assert sorted(grouped) == sorted(id(parameter) for parameter in head.parameters())


def test_head_alone_has_no_group_for_the_extractor(network: PersAM) -> None:
    assert [group["name"] for group in parameter_groups(network.head)] == ["head", "clinical"]


def test_frozen_parameters_are_in_no_group(network: PersAM) -> None:
    network.extractor.backbone[0].requires_grad_(False)
    grouped = {id(parameter) for group in parameter_groups(network) for parameter in group["params"]}
    assert grouped == {id(parameter) for parameter in network.parameters() if parameter.requires_grad}
    network.extractor.requires_grad_(False)
    assert [group["name"] for group in parameter_groups(network)] == ["head", "clinical"]


def test_weights_depend_on_seed_and_part_alone() -> None:
    drawn = []
    for seed, part, before in ((0, "head", 1), (0, "head", 5), (1, "head", 1), (0, "extractor", 1)):
        torch.rand(before)
        seed_weights(seed, part)
        drawn.append(torch.rand(4))
    assert torch.equal(drawn[0], drawn[1])
    assert len({tuple(numbers.tolist()) for numbers in drawn}) == 3
