# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from monai.networks.nets import resnet50
from torch import Tensor, nn

from persam_monai.networks import Attention, PatchExtractor, PersAM, PersAMHead, PersAMOnFeatures

MakeHead = Callable[..., PersAMHead]
OVER_PATCHES = ("explanatory", "exploratory", "class_attention", "pooled")


def assert_same(found: Attention, expected: Attention, tolerance: float = 1e-6) -> None:
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=tolerance)


def gradients_of(network: nn.Module) -> list[Tensor]:
    gradients = [parameter.grad for parameter in network.parameters()]
    assert all(gradient is not None for gradient in gradients)
    return [gradient.clone() for gradient in gradients if gradient is not None]


def row(attention: Attention, bag: int) -> Attention:
    return Attention(*(field[bag : bag + 1] for field in attention))


def pad(features: Tensor, places: int, fill: float) -> tuple[Tensor, Tensor]:
    """Features with ``places`` more of ``fill``, and the mask of the real ones."""
    bags, size, patches = features.shape
    padded = torch.cat([features.detach(), torch.full((bags, size, places), fill)], dim=2)
    mask = torch.arange(patches + places).expand(bags, -1) < patches
    return padded, mask


@pytest.mark.parametrize("patches", [1, 7, 100, 5000])
def test_shapes_and_ranges_for_any_bag_size(make_head: MakeHead, attention: str, patches: int) -> None:
    with torch.no_grad():
        found = make_head(attention).attend(torch.randn(2, 7, patches), torch.randn(2, 5))
    shapes = [(2, 3), (2, 3, patches), (2, patches), (2, 3, patches), (2, 3), (2, patches), (2, patches)]
    assert [tuple(field.shape) for field in found] == shapes
    assert torch.isfinite(found.logits).all()
    assert all((field > 0).all() and (field < 1).all() for field in found[1:6])
    assert found.mask.all()


def test_permuting_patches_permutes_attentions_and_leaves_logits(make_head: MakeHead, attention: str) -> None:
    head, features, records = make_head(attention), torch.randn(2, 7, 9), torch.randn(2, 5)
    order = torch.randperm(9)
    expected = head.attend(features, records)
    expected = expected._replace(**{name: getattr(expected, name)[..., order] for name in OVER_PATCHES})
    assert_same(head.attend(features[..., order], records), expected)


@pytest.mark.parametrize("fill", [0.0, 1e4, float("nan")])
def test_padding_changes_neither_outputs_nor_gradients(make_head: MakeHead, attention: str, fill: float) -> None:
    head, features, records = make_head(attention), torch.randn(2, 7, 6), torch.randn(2, 5)
    padded, mask = pad(features, 4, fill)
    gradients = []
    for some, seen in ((features, None), (padded, mask)):
        some.requires_grad_()
        head.zero_grad()
        found = head.attend(some, records, seen)
        (found.logits.square().sum() + found.explanatory.sum()).backward()
        assert some.grad is not None
        gradients.append([some.grad[..., :6], *gradients_of(head)])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)
    assert padded.grad is not None
    assert (padded.grad[..., 6:] == 0).all()

    expected = head.attend(features, records)
    assert all((getattr(found, name)[..., 6:] == 0).all() for name in OVER_PATCHES)
    cut = {name: getattr(found, name)[..., :6] for name in (*OVER_PATCHES, "mask")}
    assert_same(found._replace(**cut), expected)


def test_bag_of_padding_alone_is_finite_and_leaves_its_neighbour_alone(make_head: MakeHead, attention: str) -> None:
    head, features, records = make_head(attention), torch.randn(2, 7, 6, requires_grad=True), torch.randn(2, 5)
    mask = torch.tensor([[False] * 6, [True] * 6])
    found = head.attend(features, records, mask)
    assert torch.isfinite(found.logits).all()
    assert (found.pooled[0] == 0).all()
    assert found.mask.any(dim=1).tolist() == [False, True]
    assert_same(row(found, 1), head.attend(features[1:], records[1:]))
    found.logits.sum().backward()
    assert features.grad is not None
    assert (features.grad[0] == 0).all()
    assert all(torch.isfinite(gradient).all() for gradient in gradients_of(head))


def test_a_bag_alone_is_the_same_bag_in_a_batch(make_head: MakeHead, attention: str) -> None:
    head, features, records = make_head(attention), torch.randn(3, 7, 8), torch.randn(3, 5)
    mask = torch.rand(3, 8) < 0.7
    batch = head.attend(features, records, mask)
    for bag in range(3):
        assert_same(row(batch, bag), head.attend(*(x[bag : bag + 1] for x in (features, records, mask))))


def test_changing_only_the_record_changes_the_attention(make_head: MakeHead, attention: str) -> None:
    head, features = make_head(attention), torch.randn(1, 7, 8).expand(2, -1, -1)
    found = head.attend(features, torch.randn(2, 5))
    assert (found.pooled[0] - found.pooled[1]).abs().max() > 1e-3


def test_ablated_attentions_are_one(make_head: MakeHead) -> None:
    features, records, mask = torch.randn(2, 7, 8), torch.randn(2, 5), torch.rand(2, 8) < 0.7
    found = make_head(exploratory=False).attend(features, records, mask)
    assert torch.equal(found.exploratory, mask.float())
    torch.testing.assert_close(found.explanatory, found.class_attention * found.class_relevance[..., None])
    found = make_head(relevance=False).attend(features, records, mask)
    assert torch.equal(found.class_relevance, torch.ones(2, 3))
    torch.testing.assert_close(found.explanatory, found.class_attention * found.exploratory[:, None])


def test_without_exploratory_attention_and_relevance_the_record_acts_through_the_encoder_alone(
    make_head: MakeHead,
) -> None:
    features, records = torch.randn(1, 7, 8).expand(2, -1, -1), torch.randn(2, 5)
    through_encoder = make_head(exploratory=False, relevance=False).attend(features, records)
    assert (through_encoder.pooled[0] - through_encoder.pooled[1]).abs().max() > 1e-4
    unread = make_head(exploratory=False, relevance=False, layers=0).attend(features, records)
    assert_same(row(unread, 0), row(unread, 1), 0)
    only_aggregator = make_head(layers=0).attend(features, records)
    assert (only_aggregator.pooled[0] - only_aggregator.pooled[1]).abs().max() > 1e-3


@pytest.mark.parametrize("ablations", [{"exploratory": False}, {"relevance": False}, {"layers": 0}])
def test_ablated_head_is_scriptable_and_built_again_from_its_settings(make_head: MakeHead, ablations: dict) -> None:
    head, features, mask = make_head(**ablations), torch.randn(2, 7, 8), torch.rand(2, 8) < 0.7
    assert_same(Attention(*torch.jit.script(head).attend(features, None, mask)), head.attend(features, None, mask))
    again = PersAMHead(**head.settings)
    assert again.settings == head.settings
    again.load_state_dict(head.state_dict())
    assert_same(again.eval().attend(features, None, mask), head.attend(features, None, mask), 0)


@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_half_precision_is_near_single_precision_and_finite(make_head: MakeHead, attention: str, scale: float) -> None:
    head, features, records = make_head(attention), torch.randn(2, 7, 50), torch.randn(2, 5)
    exact = head.attend(features * scale, records)
    with torch.autocast("cpu", torch.bfloat16):
        found = head.attend(features * scale, records)
    assert_same(found, exact, 2e-2)
    found.logits.sum().backward()
    assert all(torch.isfinite(gradient).all() for gradient in gradients_of(head))


def test_no_record_is_a_record_of_missing_values(make_head: MakeHead) -> None:
    head, features = make_head(), torch.randn(2, 7, 8)
    assert_same(head.attend(features), head.attend(features, torch.full((2, 5), torch.nan)), 0)
    torch.testing.assert_close(head(features), head.attend(features).logits)


def test_fresh_head_runs_without_a_record() -> None:
    head = PersAMHead(3, [3, 2], 7, 16, heads=2)
    assert torch.isfinite(head(torch.randn(1, 7, 4))).all()


def test_huge_logits_inside_stay_finite(make_head: MakeHead, attention: str) -> None:
    head = make_head(attention)
    with torch.no_grad():
        for name, parameter in head.named_parameters():
            if "query" in name:
                parameter.mul_(1e4)
    found = head.attend(torch.randn(2, 7, 8), torch.randn(2, 5))
    found.logits.sum().backward()
    assert torch.isfinite(found.logits).all()
    assert all(torch.isfinite(gradient).all() for gradient in gradients_of(head))


def test_dropout_leaves_the_attention_of_large_bags_alone(make_head: MakeHead) -> None:
    head = make_head().train()
    for module in head.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0  # what is left is the dropout on the encoder's attention weights
    small, large = torch.randn(1, 7, 1024), torch.randn(1, 7, 1025)
    assert not torch.equal(head(small), head(small))
    assert torch.equal(head(large), head(large))


def test_scripted_head_is_the_head(make_head: MakeHead, attention: str, tmp_path: Path) -> None:
    head, features, records = make_head(attention), torch.randn(2, 7, 8), torch.randn(2, 5)
    mask = torch.rand(2, 8) < 0.7
    torch.jit.script(head).save(str(tmp_path / "head.ts"))
    scripted = torch.jit.load(str(tmp_path / "head.ts"))
    assert_same(Attention(*scripted.attend(features, records, mask)), head.attend(features, records, mask))
    torch.testing.assert_close(scripted(features), head(features))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_classes": 1}, "num_classes must be at least 2"),
        ({"clinical_groups": []}, "at least one group"),
        ({"attention": "balnced"}, 'Did you mean "balanced"'),
        ({"heads": 3}, "heads must divide width"),
        ({"exploratory": "perhaps"}, "exploratory must be true or false"),
    ],
)
def test_impossible_settings_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PersAMHead(**{"feature_dim": 7, "width": 16, **arguments})


@pytest.mark.parametrize(
    ("features", "clinical", "mask", "message"),
    [
        (torch.zeros(2, 6, 8), None, None, r"features must be \[B, 7, N\]"),
        (torch.zeros(2, 7, 8), torch.zeros(2, 4), None, r"clinical must be \[B, 5\]"),
        (torch.zeros(2, 7, 8), torch.zeros(1, 5), None, "one record per bag"),
        (torch.zeros(2, 7, 8), None, torch.ones(2, 7, dtype=torch.bool), r"mask must be bool \[2, 8\]"),
        (torch.zeros(2, 7, 8), None, torch.ones(2, 8), r"mask must be bool \[2, 8\]"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(
    make_head: MakeHead, features: Tensor, clinical: Tensor | None, mask: Tensor | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make_head()(features, clinical, mask)


class Backbone(nn.Sequential):
    """Seven features per patch, with a batch-norm that would notice padding."""

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(3, 7, 3), nn.BatchNorm2d(7), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(1))


@pytest.mark.parametrize("training", [False, True])
def test_padding_changes_nothing_in_the_whole_network(make_head: MakeHead, training: bool) -> None:
    network = PersAM(Backbone(), make_head()).eval()
    network.extractor.train(training)
    image = torch.randint(0, 256, (2, 3, 5, 8, 8), dtype=torch.uint8)
    padded = torch.cat([image, torch.full((2, 3, 2, 8, 8), 255, dtype=torch.uint8)], dim=2)
    mask = torch.arange(7).expand(2, -1) < 5
    gradients = []
    for some, seen in ((image, None), (padded, mask)):
        network.zero_grad()
        logits = network(some, torch.zeros(2, 5), seen)
        logits.square().sum().backward()
        gradients.append([logits.detach(), *gradients_of(network)])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)


def test_whole_network_is_scriptable(make_head: MakeHead) -> None:
    network = PersAM(Backbone(), make_head()).eval()
    image, mask = torch.randint(0, 256, (2, 3, 5, 8, 8), dtype=torch.uint8), torch.rand(2, 5) < 0.7
    scripted = torch.jit.script(network)
    torch.testing.assert_close(scripted(image), network(image))
    assert_same(Attention(*scripted.attend(image, None, mask)), network.attend(image, None, mask))


def test_extractor_and_head_must_agree_on_the_feature_size(make_head: MakeHead) -> None:
    with pytest.raises(ValueError, match="the extractor gives 9, the head takes 7"):
        PersAM(PatchExtractor(Backbone(), feature_dim=9), make_head())


def test_parameters_are_as_many_as_the_public_codes() -> None:
    backbone = resnet50(
        spatial_dims=2,
        n_input_channels=3,
        feed_forward=False,
        conv1_t_size=7,
        conv1_t_stride=2,
        shortcut_type="B",
        bias_downsample=False,
    )
    network = PersAM(backbone, PersAMHead(3, [18, 10], projection_hidden=None))
    assert sum(parameter.numel() for parameter in network.extractor.parameters()) == 23_508_032
    assert sum(parameter.numel() for parameter in network.parameters()) == 28_915_267


def test_half_precision_features_are_computed_in_single(make_head: MakeHead) -> None:
    network = PersAMOnFeatures(make_head()).eval()
    features = torch.randn(2, 7, 4).half()
    torch.testing.assert_close(network(features), network(features.float()))
    assert network(features).dtype == torch.float32


def test_the_network_on_features_is_the_rest_of_the_whole_one(make_head: MakeHead) -> None:
    backbone = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(3, 7))
    whole = PersAM(PatchExtractor(backbone, feature_dim=7), make_head()).eval()
    rest = PersAMOnFeatures(whole.head).eval()
    image = torch.randint(0, 256, (2, 3, 4, 8, 8), dtype=torch.uint8)
    mask = torch.tensor([[True] * 4, [True, True, False, False]])
    torch.testing.assert_close(rest(whole.extractor(image, mask), None, mask), whole(image, None, mask))
    assert set(rest.state_dict()) == {name for name in whole.state_dict() if name.startswith("head.")}
