# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from typing import Any

import pytest

from persam_monai.errors import UserError
from persam_monai.settings import RULES, check_settings
from tests.bundle.running import ROOT


@pytest.mark.parametrize("name", ["train", "evaluate", "inference", "recipe", "extract"])
def test_the_configs_own_defaults_are_possible(name: str) -> None:
    check_settings(json.loads((ROOT / f"bundle/configs/{name}.json").read_text()))


def test_every_rule_is_for_a_setting_that_exists() -> None:
    keys = {
        key
        for name in ("train", "evaluate", "inference", "extract")
        for key in json.loads((ROOT / f"bundle/configs/{name}.json").read_text())
    }
    assert set(RULES) - keys == set()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("mpp", "abc"),
        ("mpp", 0),
        ("slide_mpp", -1),
        ("bag_size", 0),
        ("bag_size", 2.5),
        ("fold", "abc"),
        ("fold", 1.5),
        ("fold", True),
        ("folds", 2),
        ("seed", -1),
        ("device", "gpu"),
        ("device", "cuda:99"),
        ("precision", "bf61"),
        ("milestones", 3),
        ("missing", "mean"),
        ("clinical_dropout", 1),
        ("clinical_dropout", -0.1),
        ("clinical_dropout", "often"),
        ("milestones", ["a"]),
        ("max_epochs", 0),
        ("val_interval", 0),
        ("batch_size", 0),
        ("accumulation_steps", 0),
        ("num_workers", -1),
        ("learning_rate", "fast"),
        ("min_tissue", 1.1),
        ("patches_per_slide", "some"),
        ("overwrite", "perhaps"),
        ("decay_norms", "some"),
        ("extractor_batch", 0),
        ("extractor_batch", "all"),
        ("extractor_checkpointing", 2),
        ("resume", 3),
    ],
)
def test_a_value_that_cannot_be_meant_is_named_with_what_was_expected(name: str, value: Any) -> None:
    with pytest.raises(UserError) as caught:
        check_settings({name: value})
    assert f"{name} is {value!r}; expected {RULES[name].expected}" in str(caught.value)


def test_all_of_them_are_reported_together_with_a_suggestion() -> None:
    with pytest.raises(UserError) as caught:
        check_settings({"bag_size": -1, "precision": "bf61", "mpp": 0.5})
    assert len(str(caught.value).splitlines()) == 3
    assert 'Did you mean "bf16"?' in str(caught.value)


def test_a_training_in_which_no_epoch_can_be_chosen_is_refused_at_once() -> None:
    check_settings({"max_epochs": 1, "skip_epochs": 3, "val_interval": 1})
    check_settings({"max_epochs": 4, "skip_epochs": 3, "val_interval": 2})
    with pytest.raises(UserError, match="no epoch is both validated and eligible"):
        check_settings({"max_epochs": 3, "skip_epochs": 3, "val_interval": 2})


def test_what_a_config_still_has_to_evaluate_is_passed_over() -> None:
    check_settings({"bag_size": "$@card.bag_size", "mpp": "@other", "unknown": -1})
