# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch

from persam_monai.networks import (
    HEADS,
    PatchExtractor,
    PersAM,
    PersAMHead,
    PersAMOnFeatures,
    build_head,
    describe_head,
    seed_weights,
)
from persam_monai.networks.feature_scaling import FeatureScaling

SIZES = {"num_classes": 3, "clinical_groups": [3, 2], "feature_dim": 7, "width": 16, "projection_hidden": 5, "heads": 2}
READING = [name for name in HEADS if name != "ClinicalHead"]


def test_features_become_deviations_from_the_training_patches() -> None:
    patches = torch.randn(50, 7) * torch.arange(1, 8) + 100
    scaling = FeatureScaling(7)
    scaling.fit(patches)
    expected = (patches - patches.mean(dim=0)) / patches.std(dim=0, correction=0)
    torch.testing.assert_close(scaling(patches.T[None])[0].T, expected, atol=1e-4, rtol=1e-4)


def test_a_feature_that_never_changes_becomes_zero_and_not_noise() -> None:
    patches = torch.randn(50, 7)
    patches[:, 2] = 0.1
    scaling = FeatureScaling(7)
    scaling.fit(patches)
    assert scaling(patches.T[None])[0, 2].abs().max() < 1e-6


def test_a_feature_that_the_training_hardly_had_does_not_decide_everything() -> None:
    patches = torch.randn(30000, 7)
    patches[:, 2] = 0
    patches[17, 2] = 1e-4
    scaling = FeatureScaling(7)
    scaling.fit(patches)
    new = torch.zeros(1, 7, 1)
    new[0, 2] = 0.5
    assert scaling(new)[0, 2].abs() <= 10


@pytest.mark.parametrize("features", [torch.zeros(1, 7), torch.zeros(5, 6), torch.zeros(7)])
def test_statistics_need_rows_of_all_features(features: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"features must be \[n, 7\] with n at least 2"):
        FeatureScaling(7).fit(features)


@pytest.mark.parametrize("name", READING)
def test_a_head_that_standardises_sees_no_change_of_origin_and_unit(name: str) -> None:
    features, record = torch.randn(2, 7, 9), torch.full((2, 5), float("nan"))
    heads = []
    for factor, shift in ((1.0, 0.0), (50.0, 3000.0)):
        seed_weights(0, "head")
        head = build_head({"class": name, **SIZES, "standardise_features": "true"}).eval()
        head.fit_features(features.transpose(1, 2).flatten(0, 1) * factor + shift)
        heads.append(head(features * factor + shift, record))
    torch.testing.assert_close(heads[0], heads[1], atol=1e-3, rtol=1e-3)
    assert heads[0].std() > 0


def test_padded_places_do_not_matter_to_a_head_that_standardises() -> None:
    head = PersAMHead(**SIZES, standardise_features=True).eval()  # type: ignore[arg-type]
    head.fit_features(torch.randn(40, 7) + 5)
    features = torch.randn(1, 7, 6)
    mask = torch.tensor([[True, True, True, True, False, False]])
    torch.testing.assert_close(head(features, None, mask), head(features[:, :, :4]))


def test_a_head_that_was_never_fitted_says_so_and_one_that_does_not_standardise_needs_no_fit() -> None:
    with pytest.raises(RuntimeError, match="fit_features"):
        PersAMHead(**SIZES, standardise_features=True)(torch.randn(1, 7, 4))  # type: ignore[arg-type]
    plain = PersAMHead(**SIZES)  # type: ignore[arg-type]
    assert not any("feature_scaling" in name for name in plain.state_dict())
    plain(torch.randn(1, 7, 4))


def test_the_statistics_travel_with_the_weights_and_through_torchscript() -> None:
    network = PersAMOnFeatures(PersAMHead(**SIZES, standardise_features=True)).eval()  # type: ignore[arg-type]
    network.head.fit_features(torch.randn(40, 7) * 3 + 5)
    features = torch.randn(2, 7, 4)
    again = PersAMOnFeatures(build_head(describe_head(network.head))).eval()
    again.load_state_dict(network.state_dict())
    torch.testing.assert_close(again(features), network(features))
    torch.testing.assert_close(torch.jit.script(network)(features), network(features))


def test_half_precision_features_are_computed_in_single() -> None:
    network = PersAMOnFeatures(PersAMHead(**SIZES)).eval()  # type: ignore[arg-type]
    features = torch.randn(2, 7, 4).half()
    torch.testing.assert_close(network(features), network(features.float()))
    assert network(features).dtype == torch.float32


def test_weights_depend_on_seed_and_room_alone() -> None:
    drawn = []
    for seed, room, before in ((0, "head", 1), (0, "head", 5), (1, "head", 1), (0, "extractor", 1)):
        torch.rand(before)
        seed_weights(seed, room)
        drawn.append(torch.rand(4))
    assert torch.equal(drawn[0], drawn[1])
    assert len({tuple(one.tolist()) for one in drawn}) == 3


def test_the_network_on_features_is_the_rest_of_the_whole_one() -> None:
    backbone = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(3, 7))
    whole = PersAM(PatchExtractor(backbone, feature_dim=7), PersAMHead(**SIZES)).eval()  # type: ignore[arg-type]
    rest = PersAMOnFeatures(whole.head).eval()
    image = torch.randint(0, 256, (2, 3, 4, 8, 8), dtype=torch.uint8)
    mask = torch.tensor([[True] * 4, [True, True, False, False]])
    torch.testing.assert_close(rest(whole.extractor(image, mask), None, mask), whole(image, None, mask))
    assert set(rest.state_dict()) == {name for name in whole.state_dict() if name.startswith("head.")}
