# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigParser
from torch import nn

from persam_monai.errors import UserError
from persam_monai.networks import PatchExtractor, TorchScriptBackbone, check_extractor
from persam_monai.overrides import check_overrides

CONFIGS = Path(__file__).parents[2] / "bundle" / "configs"
KINDS = sorted(file.stem for file in (CONFIGS / "extractors").glob("*.json"))


def parser(kind: str, **overrides: object) -> ConfigParser:
    """As ``--config_file "['inference.json','extractors/<kind>.json']"`` with overrides."""
    files = [str(CONFIGS / "inference.json"), str(CONFIGS / "extractors" / f"{kind}.json")]
    check_overrides(files, overrides)
    config = ConfigParser()
    config.read_config(files)
    config.update(dict(overrides))
    return config


def test_each_kind_has_a_config() -> None:
    assert KINDS == ["onnx", "timm", "torchscript"]


@pytest.mark.parametrize("kind", KINDS)
def test_config_is_the_block_extractor_alone_and_says_what_it_lacks(kind: str) -> None:
    assert list(ConfigParser.load_config_file(str(CONFIGS / "extractors" / f"{kind}.json"))) == ["extractor"]
    with pytest.raises(RuntimeError) as error:  # MONAI's own, around ours
        parser(kind).get_parsed_content("extractor")
    assert isinstance(error.value.__cause__, UserError)
    assert "--extractor#" in str(error.value.__cause__)


def test_file_of_the_command_line_becomes_the_patch_extractor(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Conv2d(3, 5, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(1))
    torch.jit.save(torch.jit.script(network), str(tmp_path / "model.ts"))
    overrides = {
        "extractor#path": str(tmp_path / "model.ts"),
        "head": {"_target_": "persam_monai.networks.ClinicalHead", "num_classes": 2, "clinical_groups": [1]},
        "patch_extractor#feature_dim": None,
        "patch_extractor#input_size": 16,
    }
    extractor = parser("torchscript", **overrides).get_parsed_content("patch_extractor")
    assert isinstance(extractor, PatchExtractor)
    assert isinstance(extractor.backbone, TorchScriptBackbone)
    assert check_extractor(extractor, 20) == 5
    assert extractor.input_size == 16
