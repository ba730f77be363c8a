# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from persam_monai.clinical import ClinicalSchema
from persam_monai.errors import UserError
from persam_monai.model import load_card, load_weights, save_model


def network(width: int = 4) -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, width), nn.BatchNorm1d(width))


@pytest.fixture
def card(schema: ClinicalSchema) -> dict[str, Any]:
    return {
        "schema": schema.to_dict(),
        "head": {"num_classes": 2, "clinical_groups": [3, 1]},
        "patch_size": 224,
        "mpp": 0.5,
        "bag_size": 100,
        "settings": {"fold": 2, "seed": 0},
    }


@pytest.fixture
def saved(tmp_path: Path, card: dict[str, Any]) -> tuple[nn.Sequential, Path]:
    torch.manual_seed(0)
    original, path = network(), tmp_path / "models" / "model.pt"
    original(torch.randn(8, 3))  # moves the running statistics
    save_model(original, path, {**card, "epoch": 5})
    return original, path


def test_a_saved_model_reads_back(saved: tuple[nn.Sequential, Path], schema: ClinicalSchema) -> None:
    original, path = saved
    card = load_card(path)
    assert (card.path, card.patch_size, card.mpp, card.bag_size) == (path, 224, 0.5, 100)
    assert card.schema == schema
    assert card.head == {"num_classes": 2, "clinical_groups": [3, 1]}
    assert card.settings == {"fold": 2, "seed": 0}
    other = network()
    assert load_weights(other, card) is other
    for name, tensor in original.state_dict().items():
        assert torch.equal(other.state_dict()[name], tensor), name


def test_a_model_is_tensors_and_a_description_with_their_digest(saved: tuple[nn.Sequential, Path]) -> None:
    original, path = saved
    assert sorted(file.name for file in path.parent.iterdir()) == ["model.json", "model.pt"]
    assert torch.load(path, weights_only=True).keys() == original.state_dict().keys()
    description = json.loads(path.with_suffix(".json").read_text())
    assert description["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert description["epoch"] == 5


def test_weights_of_another_training_are_refused(saved: tuple[nn.Sequential, Path]) -> None:
    _, path = saved
    torch.save(network().state_dict(), path)
    with pytest.raises(UserError, match="do not belong together"):
        load_card(path)


def test_a_flipped_byte_is_refused(saved: tuple[nn.Sequential, Path]) -> None:
    _, path = saved
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="SHA-256"):
        load_card(path)


def test_every_missing_file_is_named(tmp_path: Path, saved: tuple[nn.Sequential, Path]) -> None:
    with pytest.raises(UserError) as caught:
        load_card(tmp_path / "nowhere" / "model.pt")
    assert f"{tmp_path / 'nowhere' / 'model.pt'} is missing" in str(caught.value)
    assert f"{tmp_path / 'nowhere' / 'model.json'} is missing" in str(caught.value)
    saved[1].with_suffix(".json").unlink()
    with pytest.raises(UserError, match=r"model\.json is missing") as caught:
        load_card(saved[1])
    assert "model.pt is missing" not in str(caught.value)


@pytest.mark.parametrize("text", ["{", "[]", '{"format": 1}', '{"format": 1, "schema": 3}'])
def test_a_damaged_description_is_named(saved: tuple[nn.Sequential, Path], text: str) -> None:
    description = saved[1].with_suffix(".json")
    description.write_text(text)
    with pytest.raises(UserError) as caught:
        load_card(saved[1])
    assert str(description) in str(caught.value)


def test_another_format_is_refused(saved: tuple[nn.Sequential, Path]) -> None:
    description = saved[1].with_suffix(".json")
    description.write_text(json.dumps({**json.loads(description.read_text()), "format": 99}))
    with pytest.raises(UserError, match="has format 99; this version reads format 1"):
        load_card(saved[1])


def test_a_network_that_does_not_fit_is_told_which_tensors(saved: tuple[nn.Sequential, Path]) -> None:
    other = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4, affine=False), nn.Linear(1, 1))
    other[0] = nn.Linear(7, 4)
    with pytest.raises(UserError, match="does not fit this network") as caught:
        load_weights(other, load_card(saved[1]))
    for line in (
        "0.weight: expected shape [4, 7], found [4, 3]",
        "unexpected: 1.weight",
        "missing: 2.weight",
    ):
        assert f"  - {line}" in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04 cut off"])
def test_weights_that_are_no_tensors_are_refused(saved: tuple[nn.Sequential, Path], content: bytes) -> None:
    _, path = saved
    path.write_bytes(content)
    _accept_digest(path)
    with pytest.raises(UserError, match=r"model\.pt cannot be read as a file of tensors"):
        load_weights(network(), load_card(path))


def test_truncated_weights_are_refused(saved: tuple[nn.Sequential, Path]) -> None:
    _, path = saved
    path.write_bytes(path.read_bytes()[:-100])
    _accept_digest(path)
    with pytest.raises(UserError, match="cannot be read as a file of tensors"):
        load_weights(network(), load_card(path))


def test_weights_never_run_code(saved: tuple[nn.Sequential, Path], tmp_path: Path) -> None:
    _, path = saved
    torch.save({"0.weight": _Harmful(tmp_path / "harm")}, path)
    _accept_digest(path)
    with pytest.raises(UserError, match="cannot be read as a file of tensors"):
        load_weights(network(), load_card(path))
    assert not (tmp_path / "harm").exists()


class _Harmful:
    """Makes a file when it is unpickled."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.place,))


def _accept_digest(path: Path) -> None:
    """Let the description agree with whatever the weights are."""
    description = path.with_suffix(".json")
    content = json.loads(description.read_text())
    content["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    description.write_text(json.dumps(content))
