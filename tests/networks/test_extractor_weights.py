# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import logging
import pickletools
import zipfile
from collections.abc import Callable
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from monai.networks.nets import ResNet, resnet50
from torch import nn

from persam_monai.errors import UserError
from persam_monai.model import save_model
from persam_monai.networks import PatchExtractor, PersAM, PersAMHead, load_extractor_weights, save_extractor_weights
from persam_monai.networks.weights import IMAGENET_URL, weights_sha256


def small_resnet() -> ResNet:
    return ResNet(
        "bottleneck", [1, 1, 1, 1], [2, 2, 2, 2], 2, 3, conv1_t_stride=2, feed_forward=False, bias_downsample=False
    )


def torchvision_resnet50_shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes of torchvision's ResNet50, written down from the paper's table, without batch counts."""
    shapes: dict[str, tuple[int, ...]] = {"conv1.weight": (64, 3, 7, 7), "fc.weight": (1000, 2048), "fc.bias": (1000,)}
    norms = {"bn1": 64}
    inputs = 64
    for layer, (blocks, planes) in enumerate([(3, 64), (4, 128), (6, 256), (3, 512)], start=1):
        for block in range(blocks):
            name = f"layer{layer}.{block}"
            shapes[f"{name}.conv1.weight"] = (planes, inputs, 1, 1)
            shapes[f"{name}.conv2.weight"] = (planes, planes, 3, 3)
            shapes[f"{name}.conv3.weight"] = (4 * planes, planes, 1, 1)
            norms |= {f"{name}.bn1": planes, f"{name}.bn2": planes, f"{name}.bn3": 4 * planes}
            if block == 0:
                shapes[f"{name}.downsample.0.weight"] = (4 * planes, inputs, 1, 1)
                norms[f"{name}.downsample.1"] = 4 * planes
            inputs = 4 * planes
    for norm, size in norms.items():
        shapes |= {f"{norm}.{part}": (size,) for part in ("weight", "bias", "running_mean", "running_var")}
    return shapes


def test_torchvision_style_file_is_loaded_whole(tmp_path: Path) -> None:
    state = {name: torch.rand(shape) for name, shape in torchvision_resnet50_shapes().items()}
    torch.save(state, tmp_path / "resnet50.pth")
    backbone = resnet50(
        spatial_dims=2,
        n_input_channels=3,
        feed_forward=False,
        conv1_t_size=7,
        conv1_t_stride=2,
        shortcut_type="B",
        bias_downsample=False,
    )
    load_extractor_weights(backbone, tmp_path / "resnet50.pth")
    assert sum(parameter.numel() for parameter in backbone.parameters()) == 23_508_032
    loaded = backbone.state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in state.items() if not key.startswith("fc."))


def test_keys_that_do_not_fit_are_listed_with_the_file_and_nothing_is_loaded(tmp_path: Path) -> None:
    backbone = small_resnet()
    before = backbone.conv1.weight.clone()
    state = {key: value + 1 for key, value in backbone.state_dict().items()}
    state["layer9.weight"] = state.pop("layer1.0.conv1.weight")
    state["bn1.bias"] = torch.zeros(3)
    torch.save(state, tmp_path / "weights.pth")
    with pytest.raises(UserError) as error:
        load_extractor_weights(backbone, str(tmp_path / "weights.pth"))
    for part in ("weights.pth", "missing: layer1.0.conv1.weight", "unexpected: layer9.weight", "[2], found [3]"):
        assert part in str(error.value)
    assert torch.equal(backbone.conv1.weight, before)


def test_files_that_hold_no_weights_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere\.pth are not a file"):
        load_extractor_weights(small_resnet(), tmp_path / "nowhere.pth")
    (tmp_path / "text.pth").write_text("not a checkpoint")
    with pytest.raises(UserError, match=r"text\.pth cannot be read"):
        load_extractor_weights(small_resnet(), tmp_path / "text.pth")
    torch.save({"state_dict": {"conv1.weight": torch.zeros(1)}}, tmp_path / "nested.pth")
    with pytest.raises(UserError, match=r"found keys \['state_dict'\]"):
        load_extractor_weights(small_resnet(), tmp_path / "nested.pth")
    torch.save(small_resnet(), tmp_path / "pickled.pth")
    with pytest.raises(UserError, match=r"pickled\.pth cannot be read"):
        load_extractor_weights(small_resnet(), tmp_path / "pickled.pth")


def test_no_source_leaves_random_weights_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    backbone = small_resnet()
    before = backbone.conv1.weight.clone()
    with caplog.at_level(logging.INFO):
        load_extractor_weights(backbone, None)
    assert torch.equal(backbone.conv1.weight, before)
    assert "random weights" in caplog.text


def test_imagenet_without_a_network_says_where_to_put_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def offline(*_: object, **__: object) -> None:
        raise URLError("no network")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", offline)
    file = tmp_path / "checkpoints" / "resnet50-0676ba61.pth"
    with pytest.raises(UserError) as error:
        load_extractor_weights(small_resnet(), "imagenet")
    assert IMAGENET_URL in str(error.value)
    assert str(file) in str(error.value)

    file.parent.mkdir()
    source, target = small_resnet(), small_resnet()
    torch.save(source.state_dict(), file)
    load_extractor_weights(target, "imagenet")
    assert torch.equal(target.conv1.weight, source.conv1.weight)


def test_what_was_saved_is_loaded_again(tmp_path: Path) -> None:
    source, target = small_resnet(), small_resnet()
    source.to(memory_format=torch.channels_last)
    save_extractor_weights(PatchExtractor(source), tmp_path / "features" / "extractor.pt")
    assert [file.name for file in (tmp_path / "features").iterdir()] == ["extractor.pt"]
    assert weights_sha256(target) != weights_sha256(source)
    load_extractor_weights(target, tmp_path / "features" / "extractor.pt")
    assert weights_sha256(target) == weights_sha256(source)


def test_saved_file_holds_tensors_alone(tmp_path: Path) -> None:
    save_extractor_weights(small_resnet(), tmp_path / "extractor.pt")
    with zipfile.ZipFile(tmp_path / "extractor.pt") as file:
        content = file.read("extractor/data.pkl") if "extractor/data.pkl" in file.namelist() else b""
        content = content or file.read(next(name for name in file.namelist() if name.endswith("data.pkl")))
    classes = {value for code, value, _ in pickletools.genops(content) if code.name == "GLOBAL"}
    assert classes <= {
        "collections OrderedDict",
        "torch._utils _rebuild_tensor_v2",
        "torch FloatStorage",
        "torch LongStorage",
    }


def tiny() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 7, 3), nn.BatchNorm2d(7), nn.AdaptiveAvgPool2d(1), nn.Flatten(1))


def test_extractor_of_a_trained_model_is_taken_with_its_pixel_statistics(
    tmp_path: Path, make_head: Callable[..., PersAMHead], caplog: pytest.LogCaptureFixture
) -> None:
    trained = PersAM(PatchExtractor(tiny(), 7, mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2)), make_head())
    save_model(trained, tmp_path / "model.pt", {})
    backbone = tiny()
    load_extractor_weights(backbone, tmp_path / "model.pt")
    assert weights_sha256(backbone) == weights_sha256(trained.extractor.backbone)
    extractor = PatchExtractor(tiny())
    load_extractor_weights(extractor, tmp_path / "model.pt")
    assert "mean [0.5, 0.5, 0.5]" in caplog.text
    image = torch.randint(0, 256, (1, 3, 2, 9, 9), dtype=torch.uint8)
    assert torch.equal(extractor.eval()(image), trained.extractor.eval()(image))


def test_model_without_an_extractor_and_one_with_another_are_refused(
    tmp_path: Path, make_head: Callable[..., PersAMHead]
) -> None:
    torch.save({f"head.{name}": tensor for name, tensor in make_head().state_dict().items()}, tmp_path / "head.pt")
    with pytest.raises(UserError, match=r"head\.pt holds no extractor"):
        load_extractor_weights(tiny(), tmp_path / "head.pt")
    save_model(PersAM(tiny(), make_head()), tmp_path / "model.pt", {})
    with pytest.raises(UserError, match=r"missing: conv1\.weight"):
        load_extractor_weights(small_resnet(), tmp_path / "model.pt")


def test_safetensors_are_read_or_the_library_is_named(tmp_path: Path) -> None:
    source, target, file = small_resnet(), small_resnet(), tmp_path / "model.safetensors"
    try:
        from safetensors.torch import save_file
    except ImportError:
        file.write_bytes(b"")
        with pytest.raises(UserError, match="pip install safetensors"):
            load_extractor_weights(target, file)
        return
    save_file(source.state_dict(), file)
    load_extractor_weights(target, file)
    assert weights_sha256(target) == weights_sha256(source)
    file.write_bytes(b"not safetensors")
    with pytest.raises(UserError, match=r"cannot be read as safetensors"):
        load_extractor_weights(target, file)
