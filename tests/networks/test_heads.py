# SPDX-License-Identifier: Apache-2.0
"""What every head does, and what each baseline looks at and does not."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from torch import Tensor, nn

from persam_monai.errors import UserError
from persam_monai.losses import PersAMLoss
from persam_monai.networks import (
    Attention,
    Head,
    PatchExtractor,
    PersAM,
    PersAMHead,
    PersAMOnFeatures,
    TransformerHead,
    build_head,
    describe_head,
    parameter_groups,
    seed_weights,
)
from persam_monai.networks.baselines import GatedAttention
from persam_monai.networks.clinical_encoder import ClinicalEncoder
from persam_monai.networks.head import FeatureReduction
from persam_monai.networks.network import HEADS
from tests.networks.conftest import small_head

BASELINES = [name for name in HEADS if name != "PersAMHead"]
READING_PATCHES = [name for name in HEADS if name != "ClinicalHead"]
READING_RECORDS = [name for name in HEADS if name != "GatedAttentionMILHead"]
VARIABLES = {"clinical_groups": [5, 3], "clinical_variables": [[1, 1, 3], [1, 2]]}


def make(name: str) -> Head:
    head = small_head(name).eval()
    head.fit_records(torch.randn(20, 5))
    return head


def batch(patches: int = 8) -> tuple[Tensor, Tensor]:
    return torch.randn(2, 7, patches), torch.randn(2, 5)


def assert_same(found: Attention, expected: Attention, tolerance: float = 1e-6) -> None:
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", HEADS)
def test_a_head_keeps_every_argument_and_each_means_the_same_in_all(name: str) -> None:
    taken, papers = inspect.signature(HEADS[name]).parameters, inspect.signature(PersAMHead).parameters
    assert list(HEADS[name]().settings) == list(taken)
    assert all(str(parameter) == str(papers[key]) for key, parameter in taken.items())
    assert list(inspect.signature(HEADS[name]().attend).parameters) == ["features", "clinical", "mask"]


@pytest.mark.parametrize("name", BASELINES)
@pytest.mark.parametrize("patches", [1, 7, 5000])
def test_a_baseline_gives_logits_and_no_personalised_attention(name: str, patches: int) -> None:
    found = make(name).attend(*batch(patches))
    assert torch.isfinite(found.logits).all()
    assert found.explanatory.shape == found.class_attention.shape == (2, 0, patches)
    assert found.exploratory.shape == found.class_relevance.shape == (2, 0)
    assert found.pooled.shape == found.mask.shape == (2, patches)
    assert found.pooled.min() >= 0
    assert found.pooled.max() <= 1


@pytest.mark.parametrize("name", BASELINES)
def test_padding_changes_nothing(name: str) -> None:
    head, (features, records) = make(name), batch()
    padded = torch.cat([features, torch.full((2, 7, 3), torch.nan)], dim=2)
    mask = torch.arange(11).expand(2, -1) < 8
    found, expected = head.attend(padded, records, mask), head.attend(features, records)
    torch.testing.assert_close(found.logits, expected.logits, rtol=0, atol=1e-6)
    torch.testing.assert_close(found.pooled[:, :8], expected.pooled, rtol=0, atol=1e-6)
    assert (found.pooled[:, 8:] == 0).all()


@pytest.mark.parametrize("name", BASELINES)
def test_bag_of_padding_alone_is_finite(name: str) -> None:
    head, (features, records) = make(name), batch()
    mask = torch.tensor([[False] * 8, [True] * 8])
    found = head.attend(features, records, mask)
    found.logits.square().sum().backward()
    gradients = [parameter.grad for parameter in head.parameters() if parameter.grad is not None]
    assert torch.isfinite(found.logits).all()
    assert all(torch.isfinite(gradient).all() for gradient in gradients)
    assert (found.pooled[0] == 0).all()
    torch.testing.assert_close(found.logits[1:], head(features[1:], records[1:]), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", BASELINES)
def test_order_of_patches_does_not_matter(name: str) -> None:
    head, (features, records), order = make(name), batch(), torch.randperm(8)
    torch.testing.assert_close(head(features[..., order], records), head(features, records))


@pytest.mark.parametrize(
    ("name", "image", "record"),
    [
        ("GatedAttentionMILHead", True, False),
        ("ClinicalHead", False, True),
        ("LateFusionHead", True, True),
        ("TransformerHead", True, True),
        ("PersAMHead", True, True),
    ],
)
def test_each_head_reads_what_it_says(name: str, image: bool, record: bool) -> None:
    head, (features, records) = make(name), batch()
    logits = head(features, records)
    assert torch.allclose(head(torch.randn(2, 7, 8), records), logits) != image
    assert torch.allclose(head(features, torch.randn(2, 5)), logits) != record
    assert torch.allclose(head(features), logits) != record


def test_in_late_fusion_the_record_does_not_change_the_attention() -> None:
    head, (features, records) = make("LateFusionHead"), batch()
    assert torch.equal(head.attend(features, records).pooled, head.attend(features).pooled)


def test_gated_attention_is_what_the_formula_says() -> None:
    pooling, patches = GatedAttention(16).double(), torch.randn(1, 5, 16, dtype=torch.float64)
    mask = torch.tensor([[True, True, False, True, True]])
    readout, weights = pooling(patches, mask)
    scores = {}
    for patch in (0, 1, 3, 4):
        token = patches[0, patch]
        value = torch.tanh(pooling.value.weight @ token + pooling.value.bias)
        gate = torch.sigmoid(pooling.gate.weight @ token + pooling.gate.bias)
        scores[patch] = (pooling.score.weight[0] @ (value * gate)).exp()
    total = sum(scores.values())
    torch.testing.assert_close(readout[0], sum(score / total * patches[0, patch] for patch, score in scores.items()))
    for patch, score in scores.items():
        torch.testing.assert_close(weights[0, patch], score / max(scores.values()))
    assert weights[0, 2] == 0


@pytest.mark.parametrize("name", HEADS)
def test_scripted_head_is_the_head(name: str, tmp_path: Path) -> None:
    head, (features, records), mask = make(name), batch(), torch.rand(2, 8) < 0.7
    torch.jit.script(head).save(str(tmp_path / "head.ts"))
    scripted = torch.jit.load(str(tmp_path / "head.ts"))
    assert_same(Attention(*scripted.attend(features, records, mask)), head.attend(features, records, mask))
    torch.testing.assert_close(scripted(features), head(features))


@pytest.mark.parametrize("name", HEADS)
def test_half_precision_is_near_single_precision(name: str) -> None:
    head, (features, records) = make(name), batch(50)
    with torch.autocast("cpu", torch.bfloat16):
        found = head.attend(features, records)
    assert {field.dtype for field in found[:-1]} == {torch.float32}
    assert_same(found, head.attend(features, records), 2e-2)


@pytest.mark.parametrize("name", HEADS)
def test_every_head_learns_in_the_whole_network(name: str) -> None:
    backbone = nn.Sequential(nn.Conv2d(3, 16, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(1))
    head = small_head(name, num_classes=2, feature_dim=16, dropout=0.0)
    head.fit_records(torch.randn(20, 5))
    network, loss = PersAM(backbone, head), PersAMLoss([1, 1])
    image, labels = torch.zeros(2, 3, 4, 8, 8, dtype=torch.uint8), torch.tensor([0, 1])
    image[1] = 255
    records = torch.stack([torch.ones(5), -torch.ones(5)])
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        value = loss(network.attend(image, records), labels)
        value.backward()
        optimizer.step()
        losses.append(value.item())
    assert losses[-1] < 0.5 * losses[0]


def test_the_extractor_rests_where_no_patch_is_read() -> None:
    class Never(nn.Module):
        def forward(self, pixels: Tensor) -> Tensor:
            raise AssertionError("the record alone was to be read")

    head = make("ClinicalHead")
    records = torch.randn(2, 5)
    found = PersAM(PatchExtractor(Never(), 7), head)(torch.zeros(2, 3, 4, 8, 8), records)
    torch.testing.assert_close(found, head(torch.zeros(2, 7, 4), records))


@pytest.mark.parametrize("name", HEADS)
def test_a_description_builds_the_same_head_again(name: str) -> None:
    head, (features, records) = make(name), batch()
    again = build_head(describe_head(head))
    again.load_state_dict(head.state_dict())
    assert type(again) is type(head)
    assert_same(again.eval().attend(features, records), head.attend(features, records), 0)


def test_a_description_without_a_class_is_of_the_papers_head() -> None:
    assert type(build_head({"width": 16, "heads": 2})) is PersAMHead


@pytest.mark.parametrize("name", ["LateFusionHed", "torch.nn.Linear", "os.system", "", None])
def test_a_description_names_one_of_our_heads_and_nothing_else(name: str | None) -> None:
    with pytest.raises(UserError, match="expected one of PersAMHead, GatedAttentionMILHead"):
        build_head({"class": name})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"widht": 3}, "widht"),
        ({"class": "ClinicalHead", "layers": 2}, "ClinicalHead.*layers"),
        ({"num_classes": 1}, "at least 2"),
        ({"class": "TransformerHead", "layers": 0}, "layers"),
    ],
)
def test_an_impossible_description_is_named(arguments: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_head(arguments)


def test_transformer_reads_the_mean_of_its_class_tokens() -> None:
    head, (features, records) = make("TransformerHead"), batch()
    assert isinstance(head, TransformerHead)
    tokens = head.tokens(head.projection(features.transpose(1, 2)), head.clinical_encoder(records))
    readout = head.encoder(tokens)[:, 8 + 2 :].sum(dim=1) / 3
    torch.testing.assert_close(head(features, records), head.classifier(readout))


# ---- missing values of the record


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"missing": "learnt"}, r'one of median, learned, got "learnt"\. Did you mean "learned"'),
        ({"clinical_dropout": 1.0}, "clinical_dropout must be at least 0 and below 1, got 1"),
        ({"clinical_dropout": -0.1}, "clinical_dropout"),
        ({"clinical_variables": [[1, 1], [1, 2]]}, r"clinical_groups \[3, 2\] .* sums \[2, 3\]"),
        ({"clinical_variables": [[3], [1], [1]]}, "add up"),
        ({"clinical_variables": [[3, 0], [2]]}, "at least 1"),
    ],
)
@pytest.mark.parametrize("name", READING_RECORDS)
def test_what_cannot_be_done_about_missing_values_is_refused(
    name: str, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        small_head(name, **arguments)


@pytest.mark.parametrize("name", READING_RECORDS)
def test_a_head_hands_its_settings_to_its_clinical_encoder(name: str) -> None:
    torch.manual_seed(1)
    head = small_head(name, **VARIABLES, missing="learned", clinical_dropout=0.25)
    encoder = head.clinical_encoder
    assert isinstance(encoder, ClinicalEncoder)
    assert encoder.tokens is not None
    assert encoder.dropout == 0.25
    assert encoder.tokens.absent_variables.shape == (5, 16)
    again = build_head({"class": name, **head.settings})
    assert again.settings == head.settings
    again.load_state_dict(head.state_dict())
    head.eval(), again.eval()
    features = torch.randn(2, 7, 4)
    assert torch.equal(again(features), head(features))
    before = head(features)
    with torch.no_grad():
        encoder.tokens.empty_groups[1] += torch.randn(16)
    assert not torch.allclose(head(features), before)
    torch.testing.assert_close(torch.jit.script(head)(features), head(features))


@pytest.mark.parametrize("name", READING_RECORDS)
@pytest.mark.parametrize("decay_norms", [True, False])
def test_what_is_learned_about_absence_learns_at_the_heads_rate(name: str, decay_norms: bool) -> None:
    head = small_head(name, **VARIABLES, missing="learned")
    groups = parameter_groups(head, decay_norms=decay_norms)
    grouped = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(grouped) == sorted(id(parameter) for parameter in head.parameters())
    for key, parameter in head.named_parameters():
        (group,) = (group for group in groups if any(parameter is one for one in group["params"]))
        if "clinical_encoder.tokens" in key:
            assert group["lr"] == 2e-4
            assert group["weight_decay"] == (1e-4 if decay_norms else 0)
        elif "clinical_encoder" in key:
            assert group["lr"] == 4e-6


# ---- reduced features


def correlated_patches(n: int = 60) -> torch.Tensor:
    """Features ``[n, 7]`` with directions of very different variance, far from 0."""
    return torch.randn(n, 7) @ torch.diag(torch.tensor([50.0, 20, 5, 2, 1, 0.5, 0.1])) @ torch.randn(7, 7) + 100


def test_components_are_scikit_learns_whitened_ones() -> None:
    patches, new = correlated_patches(), correlated_patches(9) / 3 + 66
    reduction = FeatureReduction(7, 4)
    reduction.fit(patches)
    theirs = PCA(4, whiten=True, svd_solver="full").fit(patches.double().numpy())
    expected = theirs.transform(new.double().numpy()) * np.sqrt(60 / 59)  # theirs divides by n - 1
    reduced = reduction(new.T[None])[0].T.numpy()
    signs = np.sign((reduced * expected).sum(axis=0))
    np.testing.assert_allclose(reduced * signs, expected.clip(-10, 10), atol=1e-4)
    assert reduction(patches.T[None])[0].std(dim=1, correction=0).numpy() == pytest.approx(1, abs=1e-4)


def test_components_do_not_depend_on_the_order_of_the_patches_or_on_autocast() -> None:
    patches = correlated_patches()
    one, other = FeatureReduction(7, 4), FeatureReduction(7, 4)
    one.fit(patches)
    other.fit(patches[torch.randperm(60)])
    torch.testing.assert_close(one.components, other.components, atol=1e-5, rtol=1e-4)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(one(patches.T[None]), one(patches.T[None].float()))
    assert one(patches.T[None]).dtype == torch.float32


def test_features_that_vary_in_fewer_directions_have_components_of_zero_and_not_noise() -> None:
    patches = torch.randn(50, 2) @ torch.randn(2, 7) + 5
    reduction = FeatureReduction(7, 4)
    reduction.fit(patches)
    reduced = reduction(torch.randn(1, 7, 3))[0]
    assert (reduced[2:] == 0).all()
    assert (reduced[:2] != 0).all()


def test_a_patch_unlike_all_of_the_training_does_not_decide_everything() -> None:
    reduction = FeatureReduction(7, 4)
    reduction.fit(correlated_patches())
    assert reduction(torch.full((1, 7, 1), 1e6)).abs().max() == 10


@pytest.mark.parametrize("features", [torch.zeros(1, 7), torch.zeros(5, 6), torch.zeros(7)])
def test_components_need_rows_of_all_features(features: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"features must be \[n, 7\] with n at least 2"):
        FeatureReduction(7, 4).fit(features)


@pytest.mark.parametrize("name", READING_PATCHES)
def test_a_head_of_components_sees_no_change_of_origin_and_unit(name: str) -> None:
    features, record = torch.randn(2, 7, 9), torch.full((2, 5), float("nan"))
    heads = []
    for factor, shift in ((1.0, 0.0), (50.0, 3000.0)):
        seed_weights(0, "head")
        head = small_head(name, reduce_features=3).eval()
        head.fit_features(features.transpose(1, 2).flatten(0, 1) * factor + shift)
        heads.append(head(features * factor + shift, record))
    torch.testing.assert_close(heads[0], heads[1], atol=1e-3, rtol=1e-3)
    assert heads[0].std() > 0


@pytest.mark.parametrize("components", [0, 8, True])
def test_there_are_no_more_components_than_features(components: int) -> None:
    with pytest.raises(ValueError, match="reduce_features"):
        small_head("PersAMHead", reduce_features=components)


def test_padded_places_do_not_matter_to_a_head_of_components() -> None:
    head = small_head("PersAMHead", reduce_features=3).eval()
    head.fit_features(torch.randn(40, 7) + 5)
    features = torch.randn(1, 7, 6)
    mask = torch.tensor([[True, True, True, True, False, False]])
    torch.testing.assert_close(head(features, None, mask), head(features[:, :, :4]))


def test_a_head_that_was_never_fitted_says_so_and_one_that_does_not_reduce_needs_no_fit() -> None:
    with pytest.raises(RuntimeError, match="fit_features"):
        small_head("PersAMHead", reduce_features=3)(torch.randn(1, 7, 4))
    plain = small_head("PersAMHead")
    assert not any("reduction" in name for name in plain.state_dict())
    plain(torch.randn(1, 7, 4))


def test_the_components_travel_with_the_weights_and_through_torchscript() -> None:
    network = PersAMOnFeatures(small_head("PersAMHead", reduce_features=3)).eval()
    network.head.fit_features(torch.randn(40, 7) * 3 + 5)
    features = torch.randn(2, 7, 4)
    again = PersAMOnFeatures(build_head(describe_head(network.head))).eval()
    again.load_state_dict(network.state_dict())
    torch.testing.assert_close(again(features), network(features))
    torch.testing.assert_close(torch.jit.script(network)(features), network(features))


# ---- values from before the encoder


def test_with_values_of_patches_the_record_acts_through_the_attention_alone(
    make_head: Callable[..., PersAMHead], attention: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    features, records = torch.randn(1, 7, 9).expand(2, -1, -1), torch.tensor([[-2.0, 1, 3, 0, 1], [2, -1, 0, 1, -3]])
    heads = {values: make_head(attention, values=values) for values in ("tokens", "patches")}
    for head in heads.values():
        results = head.attend(features, records)
        assert not torch.allclose(results.pooled[0], results.pooled[1])
        assert not torch.allclose(results.logits[0], results.logits[1], atol=1e-4)
    monkeypatch.setattr(torch.Tensor, "sigmoid", lambda x: torch.full_like(x, 0.5))  # attention that cannot change
    frozen = {values: head(features, records) for values, head in heads.items()}
    assert torch.equal(frozen["patches"][0], frozen["patches"][1])
    assert not torch.allclose(frozen["tokens"][0], frozen["tokens"][1], atol=1e-4)


def test_values_are_of_tokens_or_of_patches(make_head: Callable[..., PersAMHead]) -> None:
    with pytest.raises(ValueError, match="values"):
        make_head(values="features")


def test_a_head_reads_both_or_the_image_or_the_record_alone(make_head: Callable[..., PersAMHead]) -> None:
    head, features, records = make_head(readings=True), torch.randn(3, 7, 9), torch.randn(3, 5)
    plain = make_head()
    own = {k: v for k, v in head.state_dict().items() if not k.startswith("record_classifier") and k != "reading"}
    plain.load_state_dict(own)
    torch.testing.assert_close(head(features, records), plain(features, records))
    head.read("image")
    torch.testing.assert_close(head(features, records), plain(features, None))
    head.read("record")
    of_record = head(features, records)
    torch.testing.assert_close(of_record, head(2 * features[:, :, :4], records))
    assert of_record.std(dim=0).min() > 0
    again = make_head(readings=True)
    again.load_state_dict(head.state_dict())
    torch.testing.assert_close(again(features, records), of_record)
    torch.testing.assert_close(torch.jit.script(again)(features, records), of_record)
    with pytest.raises(ValueError, match="both, image, record"):
        head.read("table")
