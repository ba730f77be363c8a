# SPDX-License-Identifier: Apache-2.0
"""The config files of heads and extractors: each replaces one block, and a mix-up is explained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser
from torch import nn

from persam_monai.errors import UserError
from persam_monai.networks import PatchExtractor, TorchScriptBackbone
from persam_monai.networks.extractor import check_extractor, extractor_name
from persam_monai.networks.network import HEADS
from persam_monai.overrides import HEAD_FILES, check_head, check_overrides

CONFIGS = Path(__file__).parents[2] / "bundle" / "configs"
FILES = ["onnx", "timm", "torchscript"]
# What the cohort, the command line and the record decide in a training.
TRAINING = {"num_classes": 2, "clinical_groups": [3, 1], "clinical_variables": [[1, 1, 1], [1]]}


def config(*names: str, **overrides: object) -> ConfigParser:
    """As ``--config_file "['<name>.json',…]"`` with overrides."""
    files = [str(CONFIGS / f"{name}.json") for name in names]
    check_overrides(files, overrides)
    parser = ConfigParser()
    parser.read_config(files)
    parser.update(dict(overrides))
    return parser


def block(head: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a block ``head``, with literal values for its expressions."""
    literal = {"@feature_dim": 7, "@missing": "learned", "@clinical_dropout": 0.25, "@reduce_features": 5}
    arguments = {name: literal.get(str(value), value) for name, value in head.items() if not name.startswith("_")}
    return arguments | {name: value for name, value in TRAINING.items() if name in arguments}


@pytest.mark.parametrize("name", HEADS)
def test_each_head_has_a_config_that_names_every_argument(name: str) -> None:
    content = ConfigParser.load_config_file(str(CONFIGS / "heads" / f"{HEAD_FILES[name]}.json"))
    assert list(content) == ["head"]
    assert content["head"]["_target_"] == f"persam_monai.networks.{name}"
    head = HEADS[name](**block(content["head"]))
    assert list(head.settings) == list(block(content["head"]))
    defaults = HEADS[name]().settings
    for size in {"width", "projection_hidden", "attention", "heads", "layers", "feedforward", "dropout"} & set(
        defaults
    ):
        assert head.settings[size] == defaults[size]


def test_the_head_of_a_training_is_persams() -> None:
    assert config("train").get("head") == config("train", "heads/persam").get("head")


def test_sizes_are_patched_one_by_one_and_a_heads_file_behind_them_has_its_own() -> None:
    recipe = config("train", "recipe").get("head")
    assert recipe == config("train").get("head") | {
        **{"width": 32, "projection_hidden": None, "attention": "standard", "heads": 4, "feedforward": 128},
        **{"values": "patches", "readings": True},
    }
    baseline = config("train", "recipe", "heads/clinical", **{"head#width": 64})
    assert baseline.get("head") == config("heads/clinical").get("head") | {"width": 64}
    check_head(baseline.get())


@pytest.mark.parametrize(
    ("names", "overrides", "parts"),
    [
        (
            ["train"],
            {"head#_target_": "persam_monai.networks.LateFusionHead"},
            ["LateFusionHead takes no", "attention, heads, layers, feedforward, exploratory", "heads/late_fusion.json"],
        ),
        (["train", "heads/clinical", "recipe"], {}, ["ClinicalHead takes no projection_hidden", "heads/clinical.json"]),
        (["train"], {"head#depth": 3, "head#_target_": "torch.nn.Identity"}, []),  # takes any argument
        (["train"], {"head#_target_": "torch.nn.Flatten"}, ["Flatten takes no num_classes", "a file with your block"]),
    ],
)
def test_arguments_of_another_head_are_refused_with_the_file_to_use(
    names: list[str], overrides: dict[str, Any], parts: list[str]
) -> None:
    parser = ConfigParser()
    parser.read_config([str(CONFIGS / f"{name}.json") for name in names])
    parser.update(overrides)
    if not parts:
        check_head(parser.get())
        return
    with pytest.raises(UserError) as error:
        check_head(parser.get())
    for part in parts:
        assert part in str(error.value)


def test_a_head_that_comes_from_a_model_needs_no_check() -> None:
    check_head(config("inference").get())


@pytest.mark.parametrize("kind", FILES)
def test_config_of_a_file_is_the_block_extractor_alone_and_says_what_it_lacks(kind: str) -> None:
    assert list(ConfigParser.load_config_file(str(CONFIGS / "extractors" / f"{kind}.json"))) == ["extractor"]
    with pytest.raises(RuntimeError) as error:  # MONAI's own, around ours
        config("inference", f"extractors/{kind}").get_parsed_content("extractor")
    assert isinstance(error.value.__cause__, UserError)
    assert "--extractor#" in str(error.value.__cause__)


def test_the_demos_extractor_is_a_resnet18() -> None:
    parser = config("extract", "extractors/resnet18", mpp=1.0, patch_size=112)
    extractor = parser.get_parsed_content("patch_extractor")
    assert extractor_name(extractor.backbone) == "monai.networks.nets.resnet.ResNetBlock[2, 2, 2, 2]"
    assert check_extractor(extractor, 112) == 512


def test_file_of_the_command_line_becomes_the_patch_extractor(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Conv2d(3, 5, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(1))
    torch.jit.save(torch.jit.script(network), str(tmp_path / "model.ts"))
    overrides = {
        "extractor#path": str(tmp_path / "model.ts"),
        "head": {"_target_": "persam_monai.networks.ClinicalHead", "num_classes": 2, "clinical_groups": [1]},
        "patch_extractor#input_size": 16,
        "patch_extractor#_disabled_": False,
    }
    extractor = config("inference", "extractors/torchscript", **overrides).get_parsed_content("patch_extractor")
    assert isinstance(extractor, PatchExtractor)
    assert isinstance(extractor.backbone, TorchScriptBackbone)
    assert check_extractor(extractor, 20) == 5
    assert extractor.input_size == 16
