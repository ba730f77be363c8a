# SPDX-License-Identifier: Apache-2.0
"""Backbones from TorchScript and ONNX files."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from persam_monai.errors import UserError
from persam_monai.files import sha256
from persam_monai.model import save_model
from persam_monai.networks import (
    OnnxBackbone,
    PatchExtractor,
    PersAM,
    PersAMHead,
    TorchScriptBackbone,
    load_extractor_weights,
    parameter_groups,
    save_extractor_weights,
)
from persam_monai.networks.backbones import FileBackbone
from persam_monai.networks.extractor import check_extractor, extractor_name
from persam_monai.networks.weights import brings_weights, state_sha256, weights_sha256

GAIN = np.array([[1, 2, 3, 4, 5], [0, 1, 0, -1, 0], [2, 0, 1, 0, 3]], np.float32)  # of 5 features, by channel


def test_absent_runtime_is_named_with_its_cure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model.onnx").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError) as error:
        OnnxBackbone(tmp_path / "model.onnx")
    assert "pip install '.[onnx]'" in str(error.value)


@pytest.mark.parametrize(("kind", "example"), [(OnnxBackbone, "model.onnx"), (TorchScriptBackbone, "model.ts")])
def test_file_that_is_not_there_is_named(kind: type[FileBackbone], example: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"--extractor#path {example}"):
        kind("null")
    with pytest.raises(UserError, match="nowhere"):
        kind(tmp_path / "nowhere")


Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes ONNX files that average each channel and multiply by ``GAIN``."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    helper, types = onnx.helper, onnx.TensorProto

    def make(
        shape: Sequence[Any] = ("n", 3, "h", "w"),
        half: bool = False,
        outputs: Sequence[str] = ("features",),
        external: bool = False,
        name: str = "lab.onnx",
        gain: np.ndarray = GAIN,
    ) -> Path:
        kind = types.FLOAT16 if half else types.FLOAT
        gain = gain.astype(np.float16 if half else np.float32)
        nodes = [
            helper.make_node("ReduceMean", ["pixels", "sides"], ["means"], keepdims=0),
            helper.make_node("MatMul", ["means", "gain"], ["features"]),
            helper.make_node("Unsqueeze", ["features", "one"], ["tokens"]),
            helper.make_node("Unsqueeze", ["features", "last"], ["map"]),
            helper.make_node("Identity", ["pixels"], ["pixels_again"]),
        ]
        shapes = {
            "features": [shape[0], 5],
            "tokens": [shape[0], 1, 5],
            "map": [shape[0], 5, 1, 1],
            "pixels_again": list(shape),
        }
        graph = helper.make_graph(
            nodes[-1:] if outputs == ["pixels_again"] else nodes,
            "graph",
            [helper.make_tensor_value_info("pixels", kind, list(shape))],
            [helper.make_tensor_value_info(output, kind, shapes[output]) for output in outputs],
            [
                onnx.numpy_helper.from_array(np.array([2, 3]), "sides"),
                onnx.numpy_helper.from_array(np.array([1]), "one"),
                onnx.numpy_helper.from_array(np.array([2, 3]), "last"),
                onnx.numpy_helper.from_array(gain, "gain"),
            ],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
        path = tmp_path / name
        (tmp_path / f"{name}.data").unlink(missing_ok=True)  # or it would grow
        onnx.save_model(model, str(path), save_as_external_data=external, location=f"{name}.data", size_threshold=80)
        return path

    return make


def bag(size: int = 8, patches: int = 5) -> Tensor:
    return torch.randint(0, 256, (1, patches, size, size, 3), dtype=torch.uint8).permute(0, 4, 1, 2, 3)


def expected(image: Tensor) -> Tensor:
    mean = torch.tensor([0.485, 0.456, 0.406], dtype=torch.float64)
    std = torch.tensor([0.229, 0.224, 0.225], dtype=torch.float64)
    brightness = (image.double().mean((3, 4))[0].T / 255 - mean) / std  # [N, 3]
    return (brightness @ torch.from_numpy(GAIN).double()).T[None]  # [1, D, N]


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("batch", ["n", 1, 4, 5, 8])
def test_features_are_those_of_the_network_whatever_batch_it_takes(write: Write, half: bool, batch: str | int) -> None:
    backbone = OnnxBackbone(write((batch, 3, "h", "w"), half))
    extractor, image = PatchExtractor(backbone), bag()
    found = extractor.train()(image)
    assert found.dtype == (torch.float16 if half else torch.float32)
    assert not found.requires_grad
    tolerance = {"atol": 0.03, "rtol": 0.01} if half else {"atol": 1e-4, "rtol": 1e-4}
    torch.testing.assert_close(found.double(), expected(image), **tolerance)  # type: ignore[arg-type]
    assert check_extractor(extractor, 8, "cpu") == 5


def test_fixed_size_is_met_by_resizing_and_other_sizes_are_named(write: Write) -> None:
    backbone = OnnxBackbone(write(("n", 3, 16, 16)))
    assert backbone.input_size == 16
    image = bag(8)
    torch.testing.assert_close(PatchExtractor(backbone)(image).double(), expected(image), atol=0.05, rtol=0.02)
    with pytest.raises(UserError, match="Got: 10 Expected: 16") as error:
        check_extractor(PatchExtractor(backbone, input_size=10), 8, "cpu")
    assert "--patch_extractor#input_size" in str(error.value)


@pytest.mark.parametrize("outputs", [["tokens", "features"], ["pixels_again", "map", "features"], ["map", "tokens"]])
def test_of_several_outputs_the_rows_are_taken(write: Write, outputs: list[str]) -> None:
    image = bag()
    extractor = PatchExtractor(OnnxBackbone(write(outputs=outputs)))
    torch.testing.assert_close(extractor(image).double(), expected(image), atol=1e-4, rtol=1e-4)


def test_outputs_that_are_no_rows_are_refused_with_a_cure(write: Write) -> None:
    path = write(outputs=["tokens", "features"])
    with pytest.raises(UserError, match=r"no output 'feature'; it has tokens, features. Did you mean \"features\""):
        OnnxBackbone(path, output="feature")
    with pytest.raises(UserError, match=r"tokens gave \[3, 1, 5\].*class token.*#output \(tokens, features\)"):
        check_extractor(PatchExtractor(OnnxBackbone(path, output="tokens")), 8, "cpu")


@pytest.mark.parametrize("shape", [("n", 8, 8, 3), ("n", 3, 8, 9), ("n", 3, 8)])
def test_input_of_another_form_is_refused(write: Write, shape: tuple[Any, ...]) -> None:
    with pytest.raises(UserError) as error:
        OnnxBackbone(write(shape, outputs=["pixels_again"]))
    assert f"pixels: tensor(float) {list(shape)}" in str(error.value)
    assert "[n, 3, s, s]" in str(error.value)


def test_identity_of_onnx_is_the_files(write: Write) -> None:
    path = write()
    backbone = OnnxBackbone(path)
    assert extractor_name(backbone) == "onnx:lab"
    assert weights_sha256(backbone) == hashlib.sha256(path.read_bytes()).hexdigest()
    assert brings_weights(backbone)
    with pytest.raises(UserError, match="brings its own weights"):
        load_extractor_weights(backbone, "imagenet")


def test_weights_beside_the_file_are_part_of_its_identity(write: Write, tmp_path: Path) -> None:
    path = write(external=True)
    before = weights_sha256(OnnxBackbone(path))
    graph = path.read_bytes()
    torch.testing.assert_close(PatchExtractor(OnnxBackbone(path))(bag()).shape, torch.Size([1, 5, 5]))
    assert weights_sha256(OnnxBackbone(write(external=True))) == before
    write(external=True, gain=GAIN + 1)
    assert path.read_bytes() == graph  # the ONNX file is the same, its weights are not
    assert weights_sha256(OnnxBackbone(path)) != before
    (tmp_path / "lab.onnx.data").unlink()
    with pytest.raises(UserError, match=r"lab\.onnx cannot be opened.*lab\.onnx\.data.*copy them too"):
        OnnxBackbone(path)


def test_model_refuses_another_file_than_its_own(write: Write, make_head: Callable[..., PersAMHead]) -> None:
    def network(gain: np.ndarray) -> PersAM:
        gain = np.concatenate([gain, gain[:, :2]], axis=1)  # the head takes 7 features
        return PersAM(PatchExtractor(OnnxBackbone(write(gain=gain)), 7), make_head())

    trained = network(GAIN)
    network(GAIN).load_state_dict(trained.state_dict())
    with pytest.raises(UserError, match="trained with another extractor file"):
        network(GAIN + 1).load_state_dict(trained.state_dict())


def test_what_is_no_onnx_is_named(write: Write, tmp_path: Path) -> None:
    for content in (b"", b"no network", write().read_bytes()[:40]):
        (tmp_path / "damaged.onnx").write_bytes(content)
        with pytest.raises(UserError, match=r"damaged\.onnx cannot be opened by ONNX Runtime|has the input"):
            OnnxBackbone(tmp_path / "damaged.onnx")


# ---- TorchScript


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


def torchscript_bag() -> Tensor:
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
    extractor, image = PatchExtractor(TorchScriptBackbone(path)).train(), torchscript_bag()
    expected = PatchExtractor(network, 7).eval()(image.contiguous().float())
    found = extractor(image)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(extractor(image), found)  # the file's batch-norm did not learn
    assert not found.requires_grad
    assert check_extractor(extractor, 14, "cpu") == 7
    assert parameter_groups(extractor) == []


def test_identity_of_torchscript_is_the_files(saved: tuple[Network, Path]) -> None:
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
    with pytest.raises(UserError, match="brings its own weights"):
        save_extractor_weights(backbone, tmp_path / "out.pt")


def test_what_is_no_file_of_torchscript_is_named(tmp_path: Path) -> None:
    torch.save(Network().state_dict(), tmp_path / "state.pt")
    with pytest.raises(UserError, match=r"state\.pt cannot be read as TorchScript.*extractor_weights"):
        TorchScriptBackbone(tmp_path / "state.pt")
    (tmp_path / "text.pt").write_text("no network")
    with pytest.raises(UserError, match=r"text\.pt cannot be read as TorchScript"):
        TorchScriptBackbone(tmp_path / "text.pt")


def test_error_inside_a_torchscript_file_is_reported_in_one_line(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Flatten(1), nn.Linear(3 * 8 * 8, 5))
    torch.jit.save(torch.jit.script(network), str(tmp_path / "fixed.ts"))
    extractor = PatchExtractor(TorchScriptBackbone(tmp_path / "fixed.ts"))
    with pytest.raises(UserError) as error:
        check_extractor(extractor, 14, "cpu")
    assert "mat1 and mat2 shapes cannot be multiplied" in str(error.value)
    assert "--patch_extractor#input_size" in str(error.value)
    assert check_extractor(PatchExtractor(extractor.backbone, input_size=8), 14, "cpu") == 5
