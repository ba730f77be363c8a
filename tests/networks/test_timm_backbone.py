# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from persam_monai.errors import UserError
from persam_monai.networks import PatchExtractor, TimmBackbone, load_extractor_weights, save_extractor_weights
from persam_monai.networks.extractor import check_extractor, extractor_name
from persam_monai.networks.weights import brings_weights, weights_sha256


class Network(nn.Module):
    """As timm makes them: ``num_classes=0`` leaves the classifier out."""

    def __init__(self, num_classes: int, width: int, wide: bool) -> None:
        super().__init__()
        self.num_features = width
        self.stem = nn.Conv2d(3, 2 * width if wide else width, 4, stride=4)
        self.head = nn.Linear(width, num_classes) if num_classes else nn.Identity()
        self.pretrained_cfg = {"classifier": "head"}

    def forward(self, pixels: Tensor) -> Tensor:
        features: Tensor = self.head(self.stem(pixels).mean((2, 3)))
        return features


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """A timm of one network, in place of the real one; the calls of ``create_model``."""
    calls: list[dict[str, Any]] = []
    timm, data = ModuleType("timm"), ModuleType("timm.data")

    def create_model(name: str, pretrained: bool, num_classes: int, wide: bool = False) -> nn.Module:
        calls.append({"name": name, "pretrained": pretrained, "wide": wide})
        if name != "vit_small":
            raise RuntimeError(f"Unknown model ({name})")
        if pretrained:
            raise OSError("401 Client Error. Access to this model is restricted.\nMore lines.")
        return Network(num_classes, 6, wide)

    config = {"input_size": (3, 16, 16), "mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4)}
    vars(data).update(resolve_model_data_config=lambda model: config)
    vars(timm).update(
        create_model=create_model, list_models=lambda: ["vit_small"], __version__="1.0", data=data, __path__=[]
    )
    monkeypatch.setitem(sys.modules, "timm", timm)
    monkeypatch.setitem(sys.modules, "timm.data", data)
    return calls


def test_statistics_size_and_width_are_those_of_timms_data_config(library: list[dict[str, Any]]) -> None:
    extractor = PatchExtractor(TimmBackbone("vit_small"))
    assert extractor.pixel_mean.tolist() == pytest.approx([0.5, 0.4, 0.3])
    assert extractor.pixel_std.tolist() == pytest.approx([0.2, 0.3, 0.4])
    assert (extractor.input_size, extractor.feature_dim) == (16, 6)
    assert check_extractor(extractor, 20) == 6
    assert extractor_name(extractor.backbone) == "timm:vit_small"
    assert not brings_weights(extractor.backbone)
    assert library == [{"name": "vit_small", "pretrained": False, "wide": False}]


def test_options_reach_timm_as_they_are_meant(library: list[dict[str, Any]]) -> None:
    TimmBackbone("vit_small", wide=False)
    TimmBackbone("vit_small", pretrained=False, wide=True)
    assert [call["wide"] for call in library] == [False, True]
    assert library[1]["pretrained"] is False


def test_local_file_is_loaded_without_its_classifier(library: list[dict[str, Any]], tmp_path: Path) -> None:
    whole = Network(1000, 6, False)
    torch.save(whole.state_dict(), tmp_path / "weights.bin")
    backbone = TimmBackbone("vit_small", weights=tmp_path / "weights.bin", pretrained=True)
    assert torch.equal(backbone.state_dict()["model.stem.weight"], whole.stem.weight)
    assert library[0]["pretrained"] is False  # the file is there, nothing is fetched
    assert brings_weights(backbone)

    save_extractor_weights(backbone, tmp_path / "extractor.pt")
    again = TimmBackbone("vit_small")
    assert weights_sha256(again) != weights_sha256(backbone)
    load_extractor_weights(again, tmp_path / "extractor.pt")
    assert weights_sha256(again) == weights_sha256(backbone)

    torch.save({"stem.weight": torch.zeros(1)}, tmp_path / "other.bin")
    with pytest.raises(UserError, match=r"missing: model\.stem\.bias"):
        TimmBackbone("vit_small", weights=tmp_path / "other.bin")


@pytest.mark.usefixtures("library")
def test_names_and_weights_that_timm_does_not_have_are_named() -> None:
    with pytest.raises(UserError, match="--extractor#name"):
        TimmBackbone(None)
    with pytest.raises(UserError, match=r"'vit_smal'.*mean \"vit_small\""):
        TimmBackbone("vit_smal")
    with pytest.raises(UserError, match=r"401 Client Error.*--extractor#weights"):
        TimmBackbone("vit_small", pretrained=True)
    with pytest.raises(UserError, match="unexpected keyword argument 'colour'"):
        TimmBackbone("vit_small", colour=3)


class Broken:
    """A finder after whom an import fails as it does beside a torchvision of another PyTorch."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def find_spec(self, name: str, *_: object) -> None:
        if name == "timm":
            raise self.error


@pytest.mark.parametrize(
    "error",
    [
        ModuleNotFoundError("No module named 'timm'", name="timm"),
        ModuleNotFoundError("No module named 'torchvision'", name="torchvision"),
        RuntimeError("operator torchvision::nms does not exist"),
    ],
)
def test_absent_timm_and_unfit_torchvision_are_named(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "timm"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Broken(error), *sys.meta_path])
    with pytest.raises(UserError) as found:
        TimmBackbone("vit_small")
    for part in (str(error), "torchvision", torch.__version__, "pip install '.[timm]'"):
        assert part in str(found.value)


@pytest.fixture(scope="module")
def real() -> Any:
    try:
        import timm
    except (ImportError, RuntimeError):  # RuntimeError: of a torchvision that was built for another PyTorch
        pytest.skip("timm is not here, or does not load")
    return timm


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "resnet18", "mobilenetv3_small_050"])
def test_real_networks_keep_to_the_contract(real: Any, name: str) -> None:
    extractor = PatchExtractor(TimmBackbone(name))
    width = extractor.feature_dim
    assert check_extractor(extractor, 64) == width > 0
    network = real.create_model(name, num_classes=0).eval()
    network.load_state_dict(extractor.backbone.model.state_dict())
    config = SimpleNamespace(**real.data.resolve_model_data_config(network))
    image = torch.randint(0, 256, (1, 3, 1, *config.input_size[1:]), dtype=torch.uint8)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (config.mean, config.std))
    with torch.no_grad():
        expected = network((image[0, :, 0] / 255 - mean)[None] / std)
    torch.testing.assert_close(extractor.eval()(image)[0].T, expected, atol=1e-3, rtol=1e-3)


def test_real_vision_transformer_takes_other_sizes_and_gives_tokens_if_asked(real: Any) -> None:
    flexible = PatchExtractor(TimmBackbone("vit_tiny_patch16_224", dynamic_img_size="true"), input_size=96)
    assert check_extractor(flexible, 64) == 192
    with pytest.raises(UserError, match=r"doesn't match model \(224\)"):
        check_extractor(PatchExtractor(TimmBackbone("vit_tiny_patch16_224"), input_size=96), 64)
    with pytest.raises(UserError, match=r"global_pool token"):
        check_extractor(PatchExtractor(TimmBackbone("vit_tiny_patch16_224", global_pool="")), 64)
    with pytest.raises(UserError, match="vit_tiny_patch16_224"):
        TimmBackbone("vit_tiny_patch16_22")
