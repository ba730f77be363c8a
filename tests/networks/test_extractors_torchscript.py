# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from persam_monai.errors import UserError
from persam_monai.files import sha256
from persam_monai.model import save_model
from persam_monai.networks import (
    PatchExtractor,
    PersAM,
    PersAMHead,
    TorchScriptBackbone,
    brings_weights,
    check_extractor,
    extractor_name,
    load_extractor_weights,
    parameter_groups,
    save_extractor_weights,
    state_sha256,
    weights_sha256,
)


class Network(nn.Module):
    """Convolution, batch-norm and a view that channels-last memory would not allow."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 7, 3, stride=2)
        self.norm = nn.BatchNorm2d(7)
        self.norm.running_mean = torch.randn(7)

    def forward(self, pixels: Tensor) -> Tensor:
        maps = self.norm(self.convolution(pixels))
        return maps.view(maps.shape[0], 7, -1).amax(2)


def bag() -> Tensor:
    return torch.randint(0, 256, (2, 3, 14, 14, 3), dtype=torch.uint8).permute(0, 4, 1, 2, 3)


@pytest.fixture(params=["scripted", "traced", "frozen"])
def saved(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Network, Path]:
    """A network in train mode, and the TorchScript file of it."""
    network, path = Network().train(), tmp_path / "lab_model.ts"
    if request.param == "scripted":
        script = torch.jit.script(network)
    elif request.param == "traced":
        script = torch.jit.trace(network.eval(), torch.rand(2, 3, 14, 14))
    else:
        script = torch.jit.freeze(torch.jit.script(network.eval()))
    torch.jit.save(script, str(path))
    return network, path


def test_file_gives_the_networks_own_features(saved: tuple[Network, Path]) -> None:
    network, path = saved
    extractor, image = PatchExtractor(TorchScriptBackbone(path)).train(), bag()
    expected = PatchExtractor(network, 7).eval()(image.contiguous().float())
    found = extractor(image)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(extractor(image), found)  # the file's batch-norm did not learn
    assert not found.requires_grad
    assert check_extractor(extractor, 14, "cpu") == 7
    assert parameter_groups(extractor) == []


def test_identity_is_the_files(saved: tuple[Network, Path]) -> None:
    _, path = saved
    backbone = TorchScriptBackbone(path)
    assert extractor_name(backbone) == "torchscript:lab_model"
    assert extractor_name(TorchScriptBackbone(str(path), name="uni")) == "torchscript:uni"
    assert weights_sha256(backbone) == hashlib.sha256(path.read_bytes()).hexdigest()
    assert brings_weights(backbone)


def test_model_holds_the_files_hash_alone_and_refuses_another_file(
    tmp_path: Path, make_head: Callable[..., PersAMHead]
) -> None:
    for name in ("one", "two"):
        torch.jit.save(torch.jit.script(Network()), str(tmp_path / f"{name}.ts"))
    backbone = TorchScriptBackbone(tmp_path / "one.ts")
    network = PersAM(PatchExtractor(backbone, 7), make_head())
    save_model(network, tmp_path / "model.pt", {})
    state = torch.load(tmp_path / "model.pt", weights_only=True)
    assert [key for key in state if key.startswith("extractor.backbone")] == ["extractor.backbone.file_sha256"]
    assert bytes(state["extractor.backbone.file_sha256"].tolist()).hex() == sha256(tmp_path / "one.ts")
    assert state_sha256(backbone.state_dict()) == weights_sha256(backbone)
    network.load_state_dict(state)
    other = PersAM(PatchExtractor(TorchScriptBackbone(tmp_path / "two.ts"), 7), make_head())
    with pytest.raises(UserError, match=r"trained with another extractor file than .*two\.ts"):
        other.load_state_dict(state)


def test_file_takes_no_other_weights(saved: tuple[Network, Path], tmp_path: Path) -> None:
    backbone = TorchScriptBackbone(saved[1])
    load_extractor_weights(backbone, None)
    with pytest.raises(UserError, match="brings its own weights"):
        load_extractor_weights(PatchExtractor(backbone), "imagenet")
    with pytest.raises(UserError, match="is a file already"):
        save_extractor_weights(backbone, tmp_path / "out.pt")


def test_what_is_no_file_of_torchscript_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--extractor#path"):
        TorchScriptBackbone("null")
    with pytest.raises(UserError, match=r"nowhere\.ts is not there"):
        TorchScriptBackbone(tmp_path / "nowhere.ts")
    torch.save(Network().state_dict(), tmp_path / "state.pt")
    with pytest.raises(UserError, match=r"state\.pt cannot be read as TorchScript.*extractor_weights"):
        TorchScriptBackbone(tmp_path / "state.pt")
    (tmp_path / "text.pt").write_text("no network")
    with pytest.raises(UserError, match=r"text\.pt cannot be read as TorchScript"):
        TorchScriptBackbone(tmp_path / "text.pt")


def test_error_inside_the_file_is_told_in_one_line(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Flatten(1), nn.Linear(3 * 8 * 8, 5))
    torch.jit.save(torch.jit.script(network), str(tmp_path / "fixed.ts"))
    extractor = PatchExtractor(TorchScriptBackbone(tmp_path / "fixed.ts"))
    with pytest.raises(UserError) as error:
        check_extractor(extractor, 14, "cpu")
    assert "mat1 and mat2 shapes cannot be multiplied" in str(error.value)
    assert "--patch_extractor#input_size" in str(error.value)
    assert check_extractor(PatchExtractor(extractor.backbone, input_size=8), 14, "cpu") == 5
