# SPDX-License-Identifier: Apache-2.0
"""Against outputs of the paper authors' network, where they lie beside the repository (they are not part of it)."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from monai.networks.nets import ResNet
from torch import Tensor, nn

from persam_monai.errors import UserError
from persam_monai.networks import LateFusionHead, PersAM, PersAMHead
from persam_monai.networks.reference import load_reference_state_dict, reference_settings

REFERENCE = Path(__file__).parents[2].parent / "shared" / "reference"
PREFIXES = {"balanced": "small/", "standard": "smallplain/"}
ARRAYS = {
    "logits": "logits",
    "explanatory": "explanatory",
    "class_attention": "class_attention",
    "exploratory": "exploratory",
    "class_relevance": "class_relevance",
    "pooled": "pooled_attention",
}


@pytest.fixture(scope="module")
def seeded() -> ModuleType:
    if not REFERENCE.is_dir():
        pytest.skip(f"no reference outputs in {REFERENCE}: they come beside the repository, not with a clone")
    spec = importlib.util.spec_from_file_location("seeded", REFERENCE / "seeded.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def small_state(seeded: ModuleType, prefix: str) -> dict[str, Tensor]:
    shapes = json.loads((REFERENCE / "shapes_small.json").read_text())
    return {key: torch.from_numpy(value) for key, value in seeded.seeded_state(shapes, prefix).items()}


def small_head(attention: str = "balanced") -> PersAMHead:
    return PersAMHead(3, [5, 3], 32, 64, None, attention).eval()


def other_state(
    width: int = 16, features: int = 8, groups: tuple[int, int] = (3, 4), classes: int = 2
) -> dict[str, Tensor]:
    """A state dict under the public code's names, made without the reference folder."""
    half = width // 2
    shapes: dict[str, tuple[int, ...]] = {"attention.pos_embedding_1": (1, 1, width)}
    shapes |= {"attention.pos_embedding_2": (1, 2, width), "attention.cls_token": (1, classes, width)}
    linear = {"attention.fc": (width, features), "attention.attention.to_qkv": (3 * width, width)}
    linear |= {"attention.classifier.0": (half, width), "attention.classifier.3": (classes, half)}
    for number, size in enumerate(groups, start=1):
        linear |= {f"MLP_fc{number}.fc1.0": (half, size), f"MLP_fc{number}.fc1.2": (width, half)}
    norms = ["norm1", "norm_cls_token", *(f"norm_{of}{at}" for of in ("img", "table") for at in ("", "_emb", "_all"))]
    for layer in ("attention.transformer_encoder1", "attention.transformer_encoder2"):
        linear |= {f"{layer}.self_attn.to_qkv": (3 * width, width), f"{layer}.self_attn.to_out.0": (width, width)}
        linear |= {f"{layer}.ffn.net.0": (512, width), f"{layer}.ffn.net.3": (width, 512)}
        norms += [f"{layer.removeprefix('attention.')}.norm{place}" for place in (1, 2)]
    for name, shape in linear.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    for norm in norms:
        shapes |= {f"attention.{norm}.weight": (width,), f"attention.{norm}.bias": (width,)}
    return {key: torch.randn(shape) for key, shape in shapes.items()}


@pytest.mark.parametrize("autocast", [False, True])
def test_network_computes_what_the_authors_network_computes(seeded: ModuleType, attention: str, autocast: bool) -> None:
    prefix = PREFIXES[attention]
    head = small_head(attention)
    load_reference_state_dict(head, small_state(seeded, prefix))
    features = torch.from_numpy(seeded.seeded(prefix + "features", (12, 32)).clip(0)).T[None]
    records = [torch.from_numpy(seeded.seeded(f"{prefix}clinical{i}", (1, size))) for i, size in enumerate((5, 3))]
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        found = head.attend(features, torch.cat(records, dim=1))
    expected = np.load(REFERENCE / f"{attention}_small.npz")
    for ours, theirs in ARRAYS.items():
        difference = np.abs(getattr(found, ours)[0].numpy() - expected[theirs]).max()
        assert difference < (2e-2 if autocast else 1e-5), ours


def test_full_width_is_loaded_strictly_and_computes_the_same_one_by_one_and_in_batches(seeded: ModuleType) -> None:
    shapes = {key: list(value.shape) for key, value in other_state(512, 2048, (18, 10), 3).items()}
    state = {key: torch.from_numpy(value) for key, value in seeded.seeded_state(shapes, "full/").items()}
    assert sum(value.numel() for value in state.values()) == 28_915_267 - 23_508_032
    settings = reference_settings(state)
    assert settings == {name: PersAMHead(3, [18, 10], projection_hidden=None).settings[name] for name in settings}
    head = PersAMHead(**settings).eval()
    load_reference_state_dict(head, state)
    features = torch.from_numpy(seeded.seeded("full/features", (2, 2048, 100)).clip(0))
    records = torch.from_numpy(seeded.seeded("full/records", (2, 28)))
    with torch.no_grad():
        found = head.attend(features, records)
        for bag in range(2):
            alone = head.attend(features[bag : bag + 1], records[bag : bag + 1])
            for one, other in zip(found, alone, strict=True):
                assert torch.isfinite(other).all()
                torch.testing.assert_close(one[bag : bag + 1], other, rtol=0, atol=1e-5)


def test_sizes_are_read_from_the_checkpoint() -> None:
    state = {f"module.{key}": value for key, value in other_state().items()}
    settings = reference_settings(state, "standard", heads=4)
    head = PersAMHead(**settings)
    load_reference_state_dict(head, state)
    assert (head.settings["clinical_groups"], head.settings["attention"], head.settings["heads"]) == (
        [3, 4],
        "standard",
        4,
    )
    assert head.settings["feedforward"] == 512


def test_what_is_no_checkpoint_of_the_public_code_is_named() -> None:
    with pytest.raises(UserError, match=r"attention\.fc\.weight: expected a tensor of 2 dimensions, found nothing"):
        reference_settings({"layer1.weight": torch.zeros(3, 3)})
    with pytest.raises(UserError, match="heads must divide the checkpoint's width 16, got 3"):
        reference_settings(other_state(), heads=3)


def test_a_baseline_takes_no_checkpoint_of_the_public_code() -> None:
    network = PersAM(small_resnet(), LateFusionHead(2, [3, 4], 8, 16, None))
    with pytest.raises(UserError, match="this network has a LateFusionHead"):
        load_reference_state_dict(network, other_state())


def test_everything_that_does_not_fit_is_listed_and_nothing_is_loaded() -> None:
    head = PersAMHead(2, [3, 4], 8, 16, None)
    before = {key: value.clone() for key, value in head.state_dict().items()}
    state = other_state()
    del state["attention.fc.weight"]
    state["attention.extra"] = torch.zeros(1)
    state["attention.norm1.bias"] = torch.zeros(15)
    with pytest.raises(UserError) as error:
        load_reference_state_dict(head, state)
    for line in ("missing: attention.fc.weight", "unexpected: attention.extra", "expected shape [16], found [15]"):
        assert line in str(error.value)
    assert all(torch.equal(before[key], value) for key, value in head.state_dict().items())


def test_hidden_layer_in_the_projection_is_named_as_the_reason() -> None:
    with pytest.raises(UserError, match="projection_hidden=None"):
        load_reference_state_dict(PersAMHead(2, [3, 4], 8, 16), other_state())


def test_records_are_taken_as_standardised_afterwards() -> None:
    head = PersAMHead(2, [3, 4], 8, 16, None)
    head.clinical_encoder.fit(torch.randn(9, 7) * 5 + 3)
    load_reference_state_dict(head, other_state())
    fresh = PersAMHead(2, [3, 4], 8, 16, None)
    fresh.clinical_encoder.assume_standardised()
    load_reference_state_dict(fresh, other_state())
    assert head.clinical_encoder.fitted
    assert torch.equal(head.clinical_encoder.mean, torch.zeros(7))
    assert torch.equal(head.clinical_encoder.scale, torch.ones(7))


def small_resnet() -> ResNet:
    return ResNet("bottleneck", [1, 1, 1, 1], [2, 2, 2, 2], 2, 3, conv1_t_stride=2, feed_forward=False).eval()


def test_extractor_of_a_whole_checkpoint_is_loaded() -> None:
    theirs = small_resnet()
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, std=0.3)
    layers = (theirs.layer1, theirs.layer2, theirs.layer3, theirs.layer4)
    sequence = nn.Sequential(theirs.conv1, theirs.bn1, nn.ReLU(), theirs.maxpool, *layers, nn.AdaptiveAvgPool2d(1))
    state = {f"feature_ex.feature_ex.{key}": value for key, value in sequence.state_dict().items()} | other_state()
    network = PersAM(small_resnet(), PersAMHead(2, [3, 4], 8, 16, None)).eval()
    load_reference_state_dict(network, {f"module.{key}": value for key, value in state.items()})
    image = torch.randint(0, 256, (1, 3, 4, 32, 32), dtype=torch.uint8)
    with torch.no_grad():
        expected = sequence(image[0].transpose(0, 1) / 255).flatten(1)
        torch.testing.assert_close(network.extractor(image)[0].T, expected)

    del state["feature_ex.feature_ex.7.0.conv1.weight"]
    with pytest.raises(UserError, match=r"missing: feature_ex\.feature_ex\.7\.0\.conv1\.weight"):
        load_reference_state_dict(network, state)


def test_head_ignores_the_extractor_of_a_whole_checkpoint() -> None:
    head = PersAMHead(2, [3, 4], 8, 16, None)
    state = other_state()
    load_reference_state_dict(head, state | {"feature_ex.feature_ex.0.weight": torch.zeros(1)})
    torch.testing.assert_close(head.projection.weight, state["attention.fc.weight"])


def test_checkpoint_without_extractor_leaves_the_networks_own(caplog: pytest.LogCaptureFixture) -> None:
    network = PersAM(small_resnet(), PersAMHead(2, [3, 4], 8, 16, None))
    before = network.extractor.backbone.conv1.weight.clone()
    load_reference_state_dict(network, other_state())
    assert torch.equal(network.extractor.backbone.conv1.weight, before)
    assert "no extractor" in caplog.text
