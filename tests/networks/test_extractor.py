# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import torch
from monai.networks.nets import resnet50
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from persam_monai.networks import PatchExtractor


class Backbone(nn.Module):
    """One feature per channel, their means, which are easy to compute by hand; keeps what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []

    def forward(self, patches: Tensor) -> Tensor:
        self.seen.append(patches)
        return patches.mean(dim=(2, 3))


class Operations(TorchDispatchMode):
    """Keeps the names of the operations that run inside."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


def as_decoded(bags: int, patches: int, size: int = 8) -> Tensor:
    """Rows of RGB bytes as a decoder hands them out, seen as ``[B, 3, N, H, W]``."""
    rows = torch.randint(0, 256, (bags, patches, size, size, 3), dtype=torch.uint8)
    return rows.permute(0, 4, 1, 2, 3)


@pytest.mark.parametrize("chunk", [None, 1, 4])
def test_features_are_those_of_the_standardised_pixels_and_zero_at_padding(chunk: int | None) -> None:
    mean, std = [0.5, 0.4, 0.3], [0.2, 0.3, 0.4]
    extractor = PatchExtractor(Backbone(), 3, chunk, mean, std)
    image, mask = as_decoded(2, 5), torch.tensor([[True, False, True, True, True], [False, True, False, True, False]])
    found = extractor(image, mask)  # [B, D, N]
    for bag in range(2):
        for patch in range(5):
            expected = torch.zeros(3)
            if mask[bag, patch]:
                pixels = image[bag, :, patch].double().mean(dim=(1, 2)) / 255
                expected = ((pixels - torch.tensor(mean)) / torch.tensor(std)).float()
            torch.testing.assert_close(found[bag, :, patch], expected)
    torch.testing.assert_close(extractor(image)[mask[:, None].expand(2, 3, 5)], found[mask[:, None].expand(2, 3, 5)])


def test_padded_patches_never_enter_the_backbone() -> None:
    backbone = Backbone()
    mask = torch.tensor([[True, False, True], [False, False, True]])
    image = as_decoded(2, 3).clone(memory_format=torch.preserve_format)
    image[~mask[:, None].expand(2, 3, 3)] = 255
    PatchExtractor(backbone, 3, chunk=2, mean=(0, 0, 0), std=(1, 1, 1))(image, mask)
    assert [len(patches) for patches in backbone.seen] == [2, 1]
    assert max(patches.mean().item() for patches in backbone.seen) < 1


@pytest.mark.parametrize("masked", [False, True])
def test_pixels_reach_the_backbone_in_the_decoders_layout(masked: bool) -> None:
    backbone = Backbone()
    extractor, image = PatchExtractor(backbone, 3), as_decoded(2, 5)
    mask = torch.ones(2, 5, dtype=torch.bool)
    mask[1, 3:] = not masked
    with Operations() as operations:
        extractor(image, mask)
    assert backbone.seen[0].is_contiguous(memory_format=torch.channels_last)
    assert not backbone.seen[0].is_contiguous()
    copies = [name for name in operations.names if "clone" in name or "contiguous" in name or "copy_." in name]
    assert copies == []
    assert any("index.Tensor" in name for name in operations.names) == masked  # nothing to leave out, nothing copied


def test_any_layout_and_floating_pixels_give_the_same() -> None:
    extractor, image = PatchExtractor(Backbone(), 3), as_decoded(2, 5)
    torch.testing.assert_close(extractor(image.contiguous().float()), extractor(image))


def test_batch_of_empty_bags_gives_zeros() -> None:
    extractor = PatchExtractor(Backbone(), 3)
    found = extractor(as_decoded(2, 5), torch.zeros(2, 5, dtype=torch.bool))
    assert torch.equal(found, torch.zeros(2, 3, 5))


def convolutional() -> nn.Sequential:
    """Two convolutions, a batch-norm and a dropout: all that a second forward pass could get wrong."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 3),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Dropout2d(0.3),
        nn.Conv2d(16, 16, 3),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(1),
    )


@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_chunks_give_the_same_features_when_nothing_is_trained(chunk: int) -> None:
    backbone, image = convolutional().eval(), as_decoded(2, 5)
    mask = torch.rand(2, 5) < 0.7
    expected = PatchExtractor(backbone, 16)(image, mask)
    torch.testing.assert_close(PatchExtractor(backbone, 16, chunk)(image, mask), expected)


@pytest.mark.parametrize("chunk", [None, 4])
@pytest.mark.parametrize("half", [False, True])
def test_checkpointing_changes_neither_features_nor_gradients_nor_statistics(chunk: int | None, half: bool) -> None:
    image, results = as_decoded(2, 5), []
    backbone = convolutional()
    start = {name: value.clone() for name, value in backbone.state_dict().items()}
    for checkpointing in (False, True):
        backbone.load_state_dict(start)
        backbone.zero_grad()
        torch.manual_seed(1)  # of the dropout
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            features = PatchExtractor(backbone, 16, chunk, checkpointing=checkpointing)(image)
        features.float().square().sum().backward()
        gradients = [parameter.grad.clone() for parameter in backbone.parameters() if parameter.grad is not None]
        results.append([features.detach(), *gradients, *(value.clone() for value in backbone.state_dict().values())])
        assert len(gradients) == len(list(backbone.parameters()))
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)
    assert backbone.state_dict()["1.num_batches_tracked"] == (1 if chunk is None else 3)


def test_checkpointing_keeps_nothing_of_the_backbone_until_gradients_are_asked_for() -> None:
    kept: dict[bool, int] = {}
    for checkpointing in (False, True):
        sizes: list[int] = []

        def pack(tensor: Tensor, sizes: list[int] = sizes) -> Tensor:
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            PatchExtractor(convolutional(), 16, 2, checkpointing=checkpointing)(as_decoded(1, 8, 16))
        kept[checkpointing] = sum(sizes)
    assert kept[True] < kept[False] / 5


def test_checkpointing_keeps_no_scaled_pixels_either() -> None:
    for checkpointing in (False, True):
        backbone, alive = convolutional(), list[weakref.ref[Tensor]]()
        backbone.register_forward_pre_hook(lambda _, inputs, alive=alive: alive.append(weakref.ref(inputs[0])))
        features = PatchExtractor(backbone, 16, 2, checkpointing=checkpointing)(as_decoded(1, 8, 16))
        gc.collect()
        assert sum(pixels() is not None for pixels in alive) == (0 if checkpointing else 4)
        assert features.requires_grad


def test_parts_are_of_nearly_equal_size() -> None:
    sizes: list[int] = []
    backbone = convolutional()
    backbone.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    PatchExtractor(backbone, 16, 33)(as_decoded(1, 100, 16))
    assert sum(sizes) == 100
    assert max(sizes) <= 33
    assert max(sizes) - min(sizes) <= 1


def test_checkpointing_extractor_is_scriptable() -> None:
    extractor, image = PatchExtractor(convolutional(), 16, 2, checkpointing=True).eval(), as_decoded(2, 5)
    torch.testing.assert_close(torch.jit.script(extractor)(image), extractor(image))


def test_resnet50_is_a_backbone_as_it_is() -> None:
    backbone = resnet50(
        spatial_dims=2, n_input_channels=3, feed_forward=False, conv1_t_stride=2, bias_downsample=False
    ).eval()
    entered: list[Tensor] = []
    backbone.conv1.register_forward_pre_hook(lambda _, inputs: entered.append(inputs[0]))
    with torch.no_grad():
        assert PatchExtractor(backbone)(as_decoded(1, 2, 32)).shape == (1, 2048, 2)
    assert entered[0].is_contiguous(memory_format=torch.channels_last)
    assert backbone.conv1.weight.is_contiguous(memory_format=torch.channels_last)


def test_what_does_not_fit_is_refused() -> None:
    image = as_decoded(2, 5)
    with pytest.raises(ValueError, match=r"must give \[n, 4\]"):
        PatchExtractor(Backbone(), 4)(image)
    with pytest.raises(ValueError, match=r"\[B, 3, N, H, W\]"):
        PatchExtractor(Backbone(), 3)(image[:, 0])
    with pytest.raises(ValueError, match=r"mask must be \[2, 5\]"):
        PatchExtractor(Backbone(), 3)(image, torch.ones(2, 4, dtype=torch.bool))
    with pytest.raises(ValueError, match="chunk must be at least 1"):
        PatchExtractor(Backbone(), 3, chunk=0)
    with pytest.raises(ValueError, match="std above 0"):
        PatchExtractor(Backbone(), 3, std=(1, 0, 1))
