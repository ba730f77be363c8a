# SPDX-License-Identifier: Apache-2.0
"""The precision that a device computes in."""

from __future__ import annotations

import logging

import pytest
import torch

from persam_monai.errors import UserError
from persam_monai.networks import resolve_precision


@pytest.fixture(autouse=True)
def _asked_anew() -> None:
    resolve_precision.cache_clear()


def has(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Let the processor have these capabilities, since a machine is of one kind only."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": False, **dict.fromkeys(names, True)})


@pytest.mark.parametrize(
    ("names", "precision"),
    [
        (["avx2"], "float32"),
        (["avx2", "avx512_f"], "float32"),
        (["avx512_f", "avx512_bf16"], "bf16"),
        (["amx_bf16"], "bf16"),
        (["sve", "bf16"], "bf16"),
        (["neon"], "float32"),
    ],
)
def test_auto_takes_bf16_where_the_processor_computes_in_it(
    names: list[str], precision: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    has(monkeypatch, *names)
    with caplog.at_level(logging.INFO):
        assert [resolve_precision("auto", "cpu") for _ in range(2)] == [precision, precision]
    (said,) = caplog.messages
    assert precision in said
    assert names[-1] in said or precision == "float32"


def test_bf16_by_hand_works_everywhere_and_warns_once_where_it_is_slow(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    has(monkeypatch, "avx2")
    assert [resolve_precision("bf16", "cpu") for _ in range(2)] == ["bf16", "bf16"]
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "7 times" in record.message
    has(monkeypatch, "avx512_bf16")
    resolve_precision.cache_clear()
    caplog.clear()
    assert resolve_precision("bf16", "cpu") == "bf16"
    assert not caplog.records


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_auto_on_a_gpu_follows_its_arithmetic() -> None:
    native = torch.cuda.get_device_capability()[0] >= 8
    assert resolve_precision("auto", "cuda:0") == ("bf16" if native else "float32")


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(UserError, match="fp16"):
        resolve_precision("fp16", "cpu")
