# SPDX-License-Identifier: Apache-2.0
"""Rates of one way to compute against another, and sizes."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from persam_monai.benchmark.turns import alternate
from persam_monai.losses import PersAMLoss
from persam_monai.networks import (
    AUTOCAST,
    HEADS,
    PatchExtractor,
    PersAM,
    PersAMHead,
    resnet50_backbone,
    resolve_precision,
)

GROUPS = [18, 10]  # the paper's clinical variables: interview and blood test
CLASSES = 3


def batched_over_single(repeats: int = 7, bags: int = 8, patches: int = 100) -> dict[str, Any]:
    """Forward and backward of the full-width head: bags together against one after another.

    Both add up the gradients of all bags, in the same mode (training, dropout 0.1).

    Args:
        repeats: of which the median counts.
        bags: B.
        patches: N, of each bag.

    Returns:
        Bags per second of both ways and, as ``batched_over_single``, how many times the rate batching has, in
        ``precision``, the faster one here; where that is bf16, also with names that end in ``_float32``. (In float32
        the matrix products of a single bag keep the processor's cores busy already, so batching can save only what lies
        between them.)
    """
    torch.manual_seed(0)
    head = PersAMHead(CLASSES, GROUPS).train()
    head.clinical_encoder.assume_standardised()
    loss = PersAMLoss([1] * CLASSES)
    features, records = torch.randn(bags, head.settings["feature_dim"], patches).relu(), torch.randn(bags, sum(GROUPS))
    labels = torch.arange(bags) % CLASSES

    def step(first: int, last: int, precision: str) -> None:
        with _autocast(precision):
            found = head.attend(features[first:last], records[first:last])
        (loss(found, labels[first:last]) * ((last - first) / bags)).backward()

    def run(size: int, precision: str) -> None:
        head.zero_grad()
        for first in range(0, bags, size):
            step(first, first + size, precision)

    fast = resolve_precision("auto", "cpu")
    results: dict[str, Any] = {"precision": fast}
    for precision in dict.fromkeys((fast, "float32")):
        ending = "" if precision == fast else f"_{precision}"
        ways = {"batched": partial(run, bags, precision), "single": partial(run, 1, precision)}
        seconds = alternate(ways, repeats)
        results |= {f"{name}_bags_per_s{ending}": bags / value for name, value in seconds.items()}
        results[f"batched_over_single{ending}"] = seconds["single"] / seconds["batched"]
    return results


def extractor_over_default(repeats: int = 5, patches: int = 32) -> dict[str, float]:
    """Features of 224-pixel patches by ResNet50: our extractor against MONAI's network as it is built.

    Ours takes bytes in the decoder's order and runs channels-last in the faster precision; the other one takes
    standardised float32 pixels, channels first.

    Args:
        repeats: of which the median counts.
        patches: at once.

    Returns:
        Patches per second of both and of the steps between, ``extractor_over_default``, and
        ``extractor_relative_error``: the length of the difference of the features by the length of the default's.
    """
    torch.manual_seed(0)
    default = resnet50_backbone().eval()
    extractor = PatchExtractor(resnet50_backbone()).eval()
    extractor.backbone.load_state_dict(default.state_dict())
    rows = torch.randint(0, 256, (1, patches, 224, 224, 3), dtype=torch.uint8)
    image = rows.permute(0, 4, 1, 2, 3)  # [1, 3, N, 224, 224], bytes in the decoder's order
    mean, std = (value.view(3, 1, 1) for value in (extractor.pixel_mean, extractor.pixel_std))
    pixels = ((rows[0].permute(0, 3, 1, 2) / 255 - mean) / std).contiguous()  # [N, 3, 224, 224]

    def ours(precision: str) -> Tensor:
        with _autocast(precision):
            features: Tensor = extractor(image)[0].T
        return features

    fast = resolve_precision("auto", "cpu")

    with torch.inference_mode():
        expected = default(pixels)
        error = (ours(fast).float() - expected).norm() / expected.norm()
        ways = {"default": partial(default, pixels), "channels_last": partial(ours, "float32")}
        if fast != "float32":
            ways["ours"] = partial(ours, fast)
        seconds = alternate(ways, repeats)
    seconds.setdefault("ours", seconds["channels_last"])
    rates = {f"{name}_patches_per_s": patches / value for name, value in seconds.items()}
    ratio = seconds["default"] / seconds["ours"]
    return {**rates, "extractor_over_default": ratio, "extractor_relative_error": error.item()}


def parameters() -> dict[str, dict[str, int]]:
    """Parameters by room: of PersAM as the paper and as the public code have it, and totals of all heads."""
    extractor = resnet50_backbone()
    rooms = {}
    for name, hidden in (("paper", 1024), ("public_code", None)):
        network = PersAM(extractor, PersAMHead(CLASSES, GROUPS, projection_hidden=hidden))
        rooms[name] = {"extractor": _count(network.extractor)}
        rooms[name] |= {room: _count(module) for room, module in network.head.named_children()}
        rooms[name]["total"] = _count(network)
    rooms["heads"] = {name: _count(head()) for name, head in HEADS.items()}
    return rooms


def _autocast(precision: str) -> torch.autocast:
    return torch.autocast("cpu", dtype=AUTOCAST[precision], enabled=precision != "float32")


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
