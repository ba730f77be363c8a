# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from persam_monai.errors import UserError
from persam_monai.networks import PatchExtractor, PersAM, PersAMHead, parameter_groups, resnet50_backbone
from persam_monai.networks.extractor import check_extractor, extractor_name
from persam_monai.networks.weights import brings_weights, weights_sha256


class Says(nn.Module):
    """A backbone that gives whatever a function makes of its patches, and says of itself what it is told to."""

    def __init__(self, gives: Callable[[Tensor], object] = lambda pixels: pixels.mean((2, 3)), **says: object) -> None:
        super().__init__()
        self.gives = gives
        for name, value in says.items():
            setattr(self, name, value)

    def forward(self, pixels: Tensor) -> object:
        return self.gives(pixels)


def convolutional() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.5), nn.AdaptiveAvgPool2d(1), nn.Flatten(1)
    )


def bag(patches: int = 4, size: int = 12) -> Tensor:
    return torch.randint(0, 256, (1, patches, size, size, 3), dtype=torch.uint8).permute(0, 4, 1, 2, 3)


# ---- what a backbone says of itself


def test_backbone_brings_its_pixel_statistics_and_the_config_may_set_others() -> None:
    image = bag()
    brightness = image.double().mean(dim=(3, 4)) / 255  # [1, 3, N]
    own = Says(pixel_mean=(0.1, 0.2, 0.3), pixel_std=(0.5, 0.6, 0.7))
    expected = (brightness - torch.tensor([0.1, 0.2, 0.3])[:, None]) / torch.tensor([0.5, 0.6, 0.7])[:, None]
    torch.testing.assert_close(PatchExtractor(own)(image), expected.float())
    torch.testing.assert_close(PatchExtractor(own, mean=(0, 0, 0), std=(1, 1, 1))(image), brightness.float())
    extractor = PatchExtractor(Says(), mean=None, std=None)
    assert extractor.pixel_mean.tolist() == pytest.approx([0.485, 0.456, 0.406])
    assert extractor.pixel_std.tolist() == pytest.approx([0.229, 0.224, 0.225])


def test_feature_dim_is_the_backbones_own_or_found_by_the_check() -> None:
    assert PatchExtractor(Says(feature_dim=3)).feature_dim == 3
    extractor = PatchExtractor(Says())
    assert extractor.feature_dim == 0
    assert extractor(bag(), torch.tensor([[True, False, True, False]])).shape == (1, 3, 4)
    assert check_extractor(extractor, 12, "cpu") == 3
    assert extractor.feature_dim == 3


# ---- input size


def pillow(patch: np.ndarray, size: int) -> np.ndarray:
    """Pillow's triangle filter, whose support grows with the reduction: bilinear with anti-aliasing."""
    return np.asarray(Image.fromarray(patch).resize((size, size), Image.Resampling.BILINEAR), np.float32)


@pytest.mark.parametrize(("size", "wanted"), [(40, 16), (16, 40), (23, 16)])
def test_other_sizes_are_resized_as_pillow_does(size: int, wanted: int) -> None:
    seen: list[Tensor] = []
    backbone = Says(lambda pixels: [seen.append(pixels), pixels.mean((2, 3))][1], input_size=wanted)  # type: ignore[func-returns-value]
    image = bag(2, size)
    PatchExtractor(backbone, mean=(0, 0, 0), std=(1, 1, 1))(image)
    assert seen[0].shape == (2, 3, wanted, wanted)
    for patch in range(2):
        expected = pillow(image[0, :, patch].permute(1, 2, 0).numpy(), wanted)  # rounded to bytes
        found = seen[0][patch].permute(1, 2, 0).numpy() * 255
        assert np.abs(found - expected).max() < 1.01


def test_resizing_of_standardised_pixels_is_torchs_own_and_chosen_by_the_config() -> None:
    image = bag(2, 30)
    extractor = PatchExtractor(Says(lambda pixels: pixels.flatten(1), input_size=8), input_size=10)
    rows = image[0].transpose(0, 1).double() / 255  # [N, 3, H, W]
    rows = F.interpolate(rows, (10, 10), mode="bilinear", align_corners=False, antialias=True)
    mean, std = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    expected = ((rows - mean) / std).float().flatten(1)
    torch.testing.assert_close(extractor(image)[0].T, expected, atol=1e-4, rtol=1e-4)


def test_patches_of_the_right_size_are_not_touched() -> None:
    image = bag(2, 16)
    plain, sized = PatchExtractor(Says(lambda p: p.flatten(1))), PatchExtractor(Says(lambda p: p.flatten(1)), None)
    sized.input_size = 16
    assert torch.equal(plain(image), sized(image))


@pytest.mark.parametrize("frozen", [False, True])
def test_resizing_and_frozen_extractors_are_scriptable(frozen: bool) -> None:
    extractor = PatchExtractor(convolutional(), 8, input_size=9, frozen=frozen).eval()
    image = bag()
    torch.testing.assert_close(torch.jit.script(extractor)(image), extractor(image))


# ---- frozen


def test_frozen_backbone_stays_as_it_is_while_the_head_learns(make_head: Callable[..., PersAMHead]) -> None:
    backbone = nn.Sequential(
        nn.Conv2d(3, 7, 3), nn.BatchNorm2d(7), nn.Dropout(0.5), nn.AdaptiveAvgPool2d(1), nn.Flatten(1)
    )
    network = PersAM(PatchExtractor(backbone, 7, frozen=True), make_head())
    image, records = bag(), torch.randn(1, 5)
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    expected = network.eval().extractor(image)
    head = [parameter.clone() for parameter in network.head.parameters()]
    groups = parameter_groups(network)
    assert [group["name"] for group in groups] == ["head", "clinical"]
    optimiser = torch.optim.SGD(groups, lr=0.1)
    network.train()
    assert network.head.training
    for _ in range(3):
        torch.testing.assert_close(network.extractor(image), expected, rtol=0, atol=0)
        optimiser.zero_grad()
        network(image, records).square().sum().backward()
        optimiser.step()
    assert all(torch.equal(tensor, before[name]) for name, tensor in backbone.state_dict().items())
    assert any(not torch.equal(old, new) for old, new in zip(head, network.head.parameters(), strict=True))
    assert not network.extractor(image).requires_grad


def test_extractor_that_is_not_frozen_learns() -> None:
    extractor = PatchExtractor(convolutional(), 8, frozen=False).train()
    assert extractor(bag()).requires_grad
    assert extractor.backbone[1].num_batches_tracked == 1


# ---- the check


def test_extractor_that_keeps_to_the_contract_passes_and_keeps_its_mode_and_statistics() -> None:
    backbone = convolutional()
    extractor = PatchExtractor(backbone, 8, input_size=16).train()
    backbone[3].eval()
    before, state = weights_sha256(backbone), torch.random.get_rng_state()
    assert check_extractor(extractor, 12, "cpu") == 8
    assert backbone[1].training
    assert not backbone[3].training
    assert weights_sha256(backbone) == before
    assert torch.equal(torch.random.get_rng_state(), state)  # a run's random numbers do not depend on the check


def test_resnet50_passes() -> None:
    assert check_extractor(PatchExtractor(resnet50_backbone()), 32) == 2048


def fixed(pixels: Tensor) -> Tensor:
    assert pixels.shape[2] == 224, f"Input height ({pixels.shape[2]}) doesn't match model (224)."
    return pixels.mean((2, 3))


@pytest.mark.parametrize(
    ("gives", "parts"),
    [
        (lambda p: p, ["[3, 3, 20, 20]", "feature map", "[3, D]"]),
        (lambda p: p.flatten(2), ["[3, 3, 400]", "class token", "global_pool"]),
        (lambda p: p.mean((0, 2, 3)), ["[3] for"]),
        (lambda p: p.mean((2, 3))[:1], ["[1, 3] for"]),
        (lambda p: (p.mean((2, 3)),), ["gives a tuple"]),
        (lambda p: p.mean((2, 3)).long(), ["torch.int64", "floating"]),
        (lambda p: p.mean((2, 3)) / 0, ["NaN or infinite", "mean is"]),
        (lambda p: F.batch_norm(p, None, None, training=True).amax((2, 3)), ["mixes patches", "batch-norms"]),
        (lambda p: p.reshape(3, 1200), ["fails on 1 patches", "invalid for input", "Any number of patches"]),
        (lambda p: p.mean((2, 3)).flip(0), ["mixes patches"]),
        (lambda p: p.mean((2, 3)) + 0.1 * p.mean((0, 2, 3)), ["mixes patches"]),
        (
            fixed,
            ["doesn't match model (224)", "patch_size is 20", "input_size not set", "--patch_extractor#input_size"],
        ),
    ],
)
def test_breach_of_the_contract_is_named_with_its_cure(gives: Callable[[Tensor], object], parts: list[str]) -> None:
    with pytest.raises(UserError) as error:
        check_extractor(PatchExtractor(Says(gives, extractor_name="mine")), 20, "cpu")
    for part in [*parts, "The extractor mine"]:
        assert part in str(error.value)


def test_fixed_input_size_is_met_by_resizing() -> None:
    assert check_extractor(PatchExtractor(Says(fixed), input_size=224), 20, "cpu") == 3


def test_feature_dim_that_is_not_given_is_named() -> None:
    with pytest.raises(UserError, match="gives 3 features per patch; feature_dim says 2048"):
        check_extractor(PatchExtractor(Says(), 2048), 20, "cpu")


def test_sizes_that_are_not_possible_are_refused() -> None:
    with pytest.raises(ValueError, match="feature_dim must be at least 1"):
        PatchExtractor(Says(), 0)
    with pytest.raises(ValueError, match="input_size must be at least 1"):
        PatchExtractor(Says(), input_size=0)
    with pytest.raises(ValueError, match="input_size must be at least 1"):
        PatchExtractor(Says(input_size=(224, 224)))


# ---- identity


def test_names_tell_extractors_apart() -> None:
    from monai.networks.nets import resnet18, resnet34

    assert extractor_name(resnet50_backbone()) == "monai.networks.nets.resnet50"
    for make, blocks in ((resnet18, "[2, 2, 2, 2]"), (resnet34, "[3, 4, 6, 3]")):
        small = make(spatial_dims=2, n_input_channels=3, feed_forward=False, shortcut_type="B")
        assert extractor_name(small) == f"monai.networks.nets.resnet.ResNetBlock{blocks}"
    assert extractor_name(nn.Linear(1, 1)) == "torch.nn.modules.linear.Linear"
    assert extractor_name(Says(extractor_name="uni_v1")) == "uni_v1"


def test_hash_is_of_the_weights_alone() -> None:
    backbone = convolutional()
    before = weights_sha256(backbone)
    assert len(before) == 64
    assert weights_sha256(backbone.to(memory_format=torch.channels_last)) == before  # type: ignore[call-overload]
    backbone.state_dict()["1.num_batches_tracked"].add_(5)
    assert weights_sha256(backbone) == before
    turned = Says()
    for name, parameter in reversed(list(backbone.named_children())):
        turned.add_module(name, parameter)  # the same names in another order
    assert list(turned.state_dict()) != list(backbone.state_dict())
    assert weights_sha256(turned) == before
    assert weights_sha256(backbone.double()) != before
    backbone.float()
    with torch.no_grad():
        next(backbone.parameters())[3, 1, 2, 0] += 1e-6
    assert weights_sha256(backbone) != before


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_hash_is_the_same_on_every_device() -> None:
    backbone = convolutional()
    assert weights_sha256(backbone) == weights_sha256(backbone.cuda())


def test_hash_reads_every_type_and_shape() -> None:
    network = nn.Module()
    for name, value in (
        ("weight", torch.ones(2, 3).bfloat16()),
        ("one", torch.tensor(2.0)),
        ("none", torch.zeros(0, 4)),
    ):
        network.register_buffer(name, value)
    before = weights_sha256(network)
    network.one = torch.tensor([2.0])
    assert weights_sha256(network) != before
    assert not brings_weights(network)
