# SPDX-License-Identifier: Apache-2.0
"""Arithmetic: the precision that a device computes fast in, what stays in float32, and a dropout for CPUs."""

from __future__ import annotations

import logging
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional

from persam_monai.settings import check_settings

logger = logging.getLogger(__name__)

AUTOCAST = {"float32": None, "bf16": torch.bfloat16}  # what torch.autocast computes in
NATIVE_BF16 = ("avx512_bf16", "amx_bf16", "bf16")  # processors' capabilities; the last one is ARM's
EMULATED = 7  # times as long as float32: ResNet50 on two cores of an AMD EPYC with AVX2 alone


@cache  # one line in the log, however many networks ask
def resolve_precision(precision: str, device: torch.device | str) -> str:
    """The precision that a device computes in.

    Args:
        precision: ``float32``, ``bf16`` (bfloat16 autocast), or ``auto``: bf16 where the device has arithmetic for it,
            else float32.
        device: runs the network.

    Returns:
        ``float32`` or ``bf16``.

    Raises:
        UserError: if ``precision`` is unknown.
    """
    check_settings({"precision": precision})
    native, reason = _native_bf16(torch.device(device))
    chosen = precision if precision != "auto" else "bf16" if native else "float32"
    if precision == "auto":
        logger.info("precision: auto computes in %s, since %s.", chosen, reason)
    elif chosen == "bf16" and not native:
        logger.warning(
            "precision: bf16 is slow here, since %s: a ResNet50 takes about %d times as long as in float32. "
            "--precision auto takes what is fast.",
            reason,
            EMULATED,
        )
    return chosen


def _native_bf16(device: torch.device) -> tuple[bool, str]:
    """Whether a device has bf16 arithmetic, and a clause that says so."""
    if device.type == "cuda":
        with torch.cuda.device(device):
            native = torch.cuda.is_bf16_supported(including_emulation=False)
        name = torch.cuda.get_device_name(device)
        return native, f"{name} {'has' if native else 'has no'} bf16 arithmetic"
    capabilities = torch.cpu.get_capabilities()
    found = [name for name in NATIVE_BF16 if capabilities.get(name)]
    return bool(found), f"this CPU has {found[0]}" if found else "this CPU has no bf16 arithmetic"


def at_least_float32(values: Tensor) -> Tensor:
    """``values`` in float32, or in float64 where they were: half precision rounds attentions near 0 and 1 away."""
    return values if values.dtype == torch.float64 else values.to(torch.float32)


def dropout(values: Tensor, probability: float) -> Tensor:
    """Sets elements to zero by chance and scales the others so that the mean stays.

    PyTorch draws one number per element, which on a CPU takes longer than the network's matrix products in bfloat16.
    Here one draw of 64 bits serves four elements. On other devices PyTorch's own is fused and stays, as it does in
    TorchScript.

    Args:
        values: any shape.
        probability: of an element to become zero, from 0 to 1; on a CPU rounded to 1/65536.

    Returns:
        Like ``values``; ``values`` themselves where ``probability`` is 0.
    """
    if probability == 0:
        return values
    if torch.jit.is_scripting() or values.device.type != "cpu" or probability == 1:
        return functional.dropout(values, probability)
    steps = 65536  # 16 random bits decide about an element
    lost = min(int(probability * steps + 0.5), steps - 1)
    draws = torch.empty([(values.numel() + 3) // 4], dtype=torch.int64, device=values.device)
    lowest = -9223372036854775807 - 1  # of 64 bits
    bits = draws.random_(lowest, None).view(torch.int16)[: values.numel()]  # uniform from −32768 to 32767
    kept = (bits >= lost - steps // 2).to(values.dtype).mul_(steps / (steps - lost))
    return values * kept.view(values.shape)


class Dropout(nn.Dropout):
    """:func:`dropout` while training, nothing otherwise."""

    def forward(self, values: Tensor) -> Tensor:
        """Like ``values``."""
        return dropout(values, self.p) if self.training else values
