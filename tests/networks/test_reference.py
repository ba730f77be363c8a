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
from persam_monai.networks import PersAM, PersAMHead, load_reference_state_dict

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


def other_state() -> dict[str, Tensor]:
    """A state dict under the public code's names, for networks of width 16, made without the reference folder."""
    shapes: dict[str, tuple[int, ...]] = {"attention.pos_embedding_1": (1, 1, 16), "attention.cls_token": (1, 2, 16)}
    shapes["attention.pos_embedding_2"] = (1, 2, 16)
    linear = {"attention.fc": (16, 8), "attention.attention.to_qkv": (48, 16)}
    linear |= {"attention.classifier.0": (8, 16), "attention.classifier.3": (2, 8)}
    linear |= {"MLP_fc1.fc1.0": (8, 3), "MLP_fc1.fc1.2": (16, 8), "MLP_fc2.fc1.0": (8, 4), "MLP_fc2.fc1.2": (16, 8)}
    norms = ["norm1", "norm_cls_token", *(f"norm_{of}{at}" for of in ("img", "table") for at in ("", "_emb", "_all"))]
    for layer in ("attention.transformer_encoder1", "attention.transformer_encoder2"):
        linear |= {f"{layer}.self_attn.to_qkv": (48, 16), f"{layer}.self_attn.to_out.0": (16, 16)}
        linear |= {f"{layer}.ffn.net.0": (512, 16), f"{layer}.ffn.net.3": (16, 512)}
        norms += [f"{layer.removeprefix('attention.')}.norm{place}" for place in (1, 2)]
    for name, shape in linear.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    for norm in norms:
        shapes |= {f"attention.{norm}.weight": (16,), f"attention.{norm}.bias": (16,)}
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
