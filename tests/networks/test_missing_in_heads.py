# SPDX-License-Identifier: Apache-2.0
"""Heads hand over what is to be done about missing clinical values; what is learned of it learns at their rate."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from persam_monai.networks import HEADS, ClinicalEncoder, Head, build_head, parameter_groups

GROUPS, VARIABLES = [5, 3], [[1, 1, 3], [1, 2]]
READERS = [name for name in HEADS if name != "GatedAttentionMILHead"]


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
@pytest.mark.parametrize("name", HEADS)
def test_impossible_settings_are_refused_by_every_head(name: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HEADS[name](3, [3, 2], 7, 16, heads=2, **arguments)


def make(name: str, **arguments: Any) -> Head:
    return HEADS[name](3, GROUPS, 7, 16, 5, heads=2, feedforward=12, clinical_variables=VARIABLES, **arguments)


@pytest.mark.parametrize("name", READERS)
def test_a_head_hands_its_settings_to_its_clinical_encoder(name: str) -> None:
    torch.manual_seed(1)
    head = make(name, missing="learned", clinical_dropout=0.25)
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


@pytest.mark.parametrize("name", HEADS)
def test_a_description_from_before_these_settings_builds_the_same_head(name: str) -> None:
    old = {
        "class": name,
        "num_classes": 3,
        "clinical_groups": GROUPS,
        "feature_dim": 7,
        "width": 16,
        "projection_hidden": 5,
        "attention": "balanced",
        "heads": 2,
        "layers": 2,
        "feedforward": 12,
        "dropout": 0.1,
        "exploratory": True,
        "relevance": True,
    }
    torch.manual_seed(2)
    head = build_head(old)
    torch.manual_seed(2)
    new = make(name)
    assert (head.settings["missing"], head.settings["clinical_dropout"]) == ("median", 0.0)
    assert list(head.state_dict()) == list(new.state_dict())
    assert not any("clinical_encoder.tokens" in key for key in head.state_dict())
    assert all(torch.equal(one, new.state_dict()[key]) for key, one in head.state_dict().items())


def test_that_there_is_no_list_of_variables_can_be_said_in_words() -> None:
    head = build_head({"clinical_groups": GROUPS, "clinical_variables": "null"})
    assert head.settings["clinical_variables"] is None


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("decay_norms", [True, False])
def test_what_is_learned_about_absence_learns_at_the_heads_rate(name: str, decay_norms: bool) -> None:
    head = make(name, missing="learned")
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
