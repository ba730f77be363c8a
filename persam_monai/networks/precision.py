# SPDX-License-Identifier: Apache-2.0
"""Arithmetic: the precision that a device computes fast in, and what stays in float32."""

from __future__ import annotations

import logging
from functools import cache

import torch
from torch import Tensor

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
