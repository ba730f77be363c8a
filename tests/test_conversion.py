# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of the public code become models that our own loading reads."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from monai.networks.nets import ResNet
from torch import Tensor, nn

from convert_reference_checkpoint import convert_reference_checkpoint
from persam_monai.errors import UserError
from persam_monai.model import load_card, load_weights
from persam_monai.networks import PersAM, PersAMHead, PersAMOnFeatures, build_head
from persam_monai.networks.reference import load_reference_state_dict
from tests.bundle.running import ROOT
from tests.networks.test_reference import other_state

SCHEMA = """
classes: [DLBCL, FL]
groups:
  interview:
    age: {kind: numeric}
    sex: {kind: categorical, levels: [female, male]}
  blood:
    ldh: {kind: numeric}
    crp: {kind: numeric}
    hb: {kind: numeric}
    wbc: {kind: numeric}
"""


def resnet() -> ResNet:
    return ResNet("bottleneck", [1, 1, 1, 1], [2, 2, 2, 2], 2, 3, conv1_t_stride=2, feed_forward=False).eval()


def whole_state() -> dict[str, Tensor]:
    """A checkpoint with an extractor, as data-parallel training saves it."""
    theirs = resnet()
    layers = (theirs.layer1, theirs.layer2, theirs.layer3, theirs.layer4)
    sequence = nn.Sequential(theirs.conv1, theirs.bn1, nn.ReLU(), theirs.maxpool, *layers, nn.AdaptiveAvgPool2d(1))
    extractor = {f"feature_ex.feature_ex.{key}": value for key, value in sequence.state_dict().items()}
    return {f"module.{key}": value for key, value in (extractor | other_state()).items()}


@pytest.fixture
def schema(tmp_path: Path) -> Path:
    path = tmp_path / "clinical.yaml"
    path.write_text(SCHEMA)
    return path


def test_a_converted_model_computes_what_the_checkpoint_does(tmp_path: Path, schema: Path) -> None:
    state = whole_state()
    torch.save({"epoch": 3, "state_dict": state}, tmp_path / "theirs.pth")
    output = tmp_path / "models" / "model.pt"
    said = convert_reference_checkpoint(tmp_path / "theirs.pth", output, schema, 0.5, heads=4, backbone=resnet())
    card = load_card(output)
    assert (card.mpp, card.patch_size, card.bag_size) == (0.5, 224, 100)
    assert card.schema.classes == ("DLBCL", "FL")
    network = load_weights(PersAM(resnet(), build_head(card.head)), card).eval()
    expected = PersAM(resnet(), PersAMHead(2, [3, 4], 8, 16, None, heads=4)).eval()
    load_reference_state_dict(expected, state)
    image, record = torch.randint(0, 256, (1, 3, 4, 32, 32), dtype=torch.uint8), torch.randn(1, 7)
    with torch.no_grad():
        assert torch.equal(network(image, record), expected(image, record))
    assert "standardised already" in said


def test_its_training_is_unknown_and_evaluating_says_so(tmp_path: Path) -> None:
    torch.save(other_state(), tmp_path / "theirs.pth")
    convert_reference_checkpoint(tmp_path / "theirs.pth", tmp_path / "model.pt")
    with pytest.raises(UserError, match="does not say with what fold the model was trained"):
        load_card(tmp_path / "model.pt").trained_with("fold")


def test_without_an_extractor_the_head_alone_is_written(tmp_path: Path) -> None:
    torch.save(other_state(), tmp_path / "theirs.pth")
    said = convert_reference_checkpoint(tmp_path / "theirs.pth", tmp_path / "model.pt")
    assert "--features_dir" in said
    card = load_card(tmp_path / "model.pt")
    assert card.schema.classes == ("class_1", "class_2")
    assert card.schema.group_sizes == [3, 4]
    network = load_weights(PersAMOnFeatures(build_head(card.head)), card)
    assert torch.isfinite(network(torch.randn(1, 8, 5), torch.randn(1, 7))).all()
    with pytest.raises(UserError, match="holds no extractor"):
        load_weights(PersAM(resnet(), build_head(card.head)), card)


def test_with_extractor_weights_the_network_is_whole(tmp_path: Path) -> None:
    torch.save(other_state(), tmp_path / "theirs.pth")
    weights = resnet()
    torch.save(weights.state_dict(), tmp_path / "resnet.pth")
    convert_reference_checkpoint(
        tmp_path / "theirs.pth",
        tmp_path / "model.pt",
        extractor_weights=str(tmp_path / "resnet.pth"),
        backbone=resnet(),
    )
    card = load_card(tmp_path / "model.pt")
    network = load_weights(PersAM(resnet(), build_head(card.head)), card)
    assert torch.equal(network.get_parameter("extractor.backbone.conv1.weight"), weights.conv1.weight)
    assert network.get_buffer("extractor.pixel_std").tolist() == [1, 1, 1]


def test_a_schema_that_does_not_fit_is_refused(tmp_path: Path, schema: Path) -> None:
    torch.save(other_state(groups=(3, 5), classes=3), tmp_path / "theirs.pth")
    with pytest.raises(UserError, match=r"2 classes and groups of \[3, 4\] numbers; the checkpoint has 3 classes") as e:
        convert_reference_checkpoint(tmp_path / "theirs.pth", tmp_path / "model.pt", schema)
    assert "[3, 5]" in str(e.value)
    assert not (tmp_path / "model.pt").exists()


def test_an_earlier_model_is_not_replaced(tmp_path: Path) -> None:
    torch.save(other_state(), tmp_path / "theirs.pth")
    (tmp_path / "model.json").touch()
    with pytest.raises(UserError, match=r"model\.json exists already"):
        convert_reference_checkpoint(tmp_path / "theirs.pth", tmp_path / "model.pt")


@pytest.mark.parametrize("content", [{"weights": 3}, [1, 2], {}])
def test_what_holds_no_state_dict_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "theirs.pth")
    with pytest.raises(UserError, match="holds no state dict"):
        convert_reference_checkpoint(tmp_path / "theirs.pth", tmp_path / "model.pt")


@pytest.mark.parametrize("content", [b"", b"a,b\n1,2\n", b"\x80\x02garbage"])
def test_what_is_no_file_of_tensors_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "theirs.pth").write_bytes(content)
    with pytest.raises(UserError, match="cannot be read as a file of tensors"):
        convert_reference_checkpoint(tmp_path / "theirs.pth", tmp_path / "model.pt")


def test_an_impossible_resolution_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="mpp is -1"):
        convert_reference_checkpoint(tmp_path / "theirs.pth", tmp_path / "model.pt", mpp=-1)


def test_a_pickled_network_is_not_opened(tmp_path: Path) -> None:
    torch.save(resnet(), tmp_path / "theirs.pth")
    with pytest.raises(UserError, match="cannot be read as a file of tensors"):
        convert_reference_checkpoint(tmp_path / "theirs.pth", tmp_path / "model.pt")


@pytest.mark.slow
def test_the_script_converts_and_says_what_is_wrong(tmp_path: Path) -> None:
    script = [sys.executable, str(ROOT / "scripts/convert_reference_checkpoint.py")]
    torch.save(other_state(), tmp_path / "theirs.pth")
    words = [str(tmp_path / "theirs.pth"), str(tmp_path / "model.pt")]
    result = subprocess.run([*script, *words], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "standardised already" in result.stdout
    result = subprocess.run([*script, str(tmp_path / "no.pth"), words[1]], capture_output=True, text=True)
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1].startswith("Error: ")
