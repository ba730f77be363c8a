# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from persam_monai.clinical import ClinicalSchema
from persam_monai.data import PatchSettings
from persam_monai.engines.extraction import made_with
from persam_monai.engines.joining import check_features, join_extractor
from persam_monai.errors import UserError
from persam_monai.model import ModelCard, load_card, load_weights, save_model
from persam_monai.networks import (
    PatchExtractor,
    PersAM,
    PersAMHead,
    PersAMOnFeatures,
    describe_head,
    save_extractor_weights,
)

PATCHES = PatchSettings(8)


class Backbone(nn.Module):
    """Seven features of a patch of any size."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 7)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = self.linear(pixels.mean(dim=(2, 3)))
        return features


def head() -> PersAMHead:
    return PersAMHead(2, [3, 1], 7, 16, 5, heads=2)


def saved(folder: Path, schema: ClinicalSchema, network: nn.Module, features: dict[str, Any] | None) -> ModelCard:
    content = {"schema": schema.to_dict(), "head": describe_head(head()), "patch_size": 8, "mpp": 0.25, "bag_size": 4}
    save_model(network, folder / "model.pt", {**content, "settings": {}, "features": features})
    return load_card(folder / "model.pt")


@pytest.fixture
def extractor(tmp_path: Path) -> PatchExtractor:
    """One whose weights are in a file."""
    torch.manual_seed(1)
    made = PatchExtractor(Backbone(), 7)
    save_extractor_weights(made, tmp_path / "extractor.pt")
    return made


def test_slides_get_the_extractor_that_made_the_features(
    tmp_path: Path, schema: ClinicalSchema, extractor: PatchExtractor
) -> None:
    made = made_with(extractor, PATCHES, "float32", 4).to_dict()
    card = saved(tmp_path, schema, PersAMOnFeatures(head()), made)
    network = load_weights(PersAM(PatchExtractor(Backbone(), 7), head()), card)
    join_extractor(network, card, PATCHES, str(tmp_path / "extractor.pt"))
    image = torch.randint(0, 256, (1, 3, 4, 8, 8), dtype=torch.uint8)
    torch.testing.assert_close(network.extractor(image), extractor(image))  # type: ignore[operator]


@pytest.mark.parametrize("change", [{"input_size": 16}, {"mean": [0.5] * 3}, {"std": [0.5] * 3}])
def test_pixels_that_reach_the_extractor_otherwise_are_refused(
    tmp_path: Path, schema: ClinicalSchema, extractor: PatchExtractor, change: dict[str, Any]
) -> None:
    card = saved(tmp_path, schema, PersAMOnFeatures(head()), made_with(extractor, PATCHES, "float32", 4).to_dict())
    network = load_weights(PersAM(PatchExtractor(Backbone(), 7, **change), head()), card)
    with pytest.raises(UserError, match=f"{next(iter(change))}.*: .*but the model has"):
        join_extractor(network, card, PATCHES, str(tmp_path / "extractor.pt"))


def test_a_model_without_extractor_that_does_not_say_which_is_not_given_a_random_one(
    tmp_path: Path, schema: ClinicalSchema
) -> None:
    card = saved(tmp_path, schema, PersAMOnFeatures(head()), None)
    with pytest.raises(UserError, match=r"holds no extractor .*--features_dir"):
        load_weights(PersAM(PatchExtractor(Backbone(), 7), head()), card)
    load_weights(PersAMOnFeatures(head()), card)


def test_weights_that_a_model_does_not_need_are_said_to_have_no_effect(
    tmp_path: Path, schema: ClinicalSchema, extractor: PatchExtractor, caplog: pytest.LogCaptureFixture
) -> None:
    network = PersAM(extractor, head())
    card = saved(tmp_path, schema, network, None)
    with caplog.at_level(logging.WARNING):
        join_extractor(load_weights(network, card), card, PATCHES, str(tmp_path / "extractor.pt"))
    assert "extractor_weights has no effect" in caplog.text


@pytest.mark.parametrize(
    ("trained", "found"),
    [
        (None, {"extractor": "retccl", "weights": None}),
        ({"extractor": None, "weights": None}, {"extractor": "uni", "weights": "ab" * 32}),
    ],
)
def test_features_that_cannot_be_compared_are_said_to_be_so(
    trained: dict[str, Any] | None,
    found: dict[str, Any],
    tmp_path: Path,
    schema: ClinicalSchema,
    extractor: PatchExtractor,
    caplog: pytest.LogCaptureFixture,
) -> None:
    network = PersAM(extractor, head()) if trained is None else PersAMOnFeatures(head())
    card = saved(tmp_path, schema, network, trained)
    dataset = SimpleNamespace(entries=(), source=SimpleNamespace(made_of=lambda entries: found))
    with caplog.at_level(logging.WARNING):
        check_features(card, dataset)  # type: ignore[arg-type]
    assert f"Nobody can tell whether these features (of {found['extractor']}" in caplog.text
