#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""How fast the network is, how much memory it takes, and how many parameters it has."""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
from collections.abc import Callable, Sequence
from functools import partial
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from persam_monai.losses import PersAMLoss
from persam_monai.networks import PatchExtractor, PersAM, PersAMHead, resnet50_backbone, resolve_precision
from persam_monai.networks.network import HEADS
from persam_monai.networks.precision import AUTOCAST
from turns import Budget, as_text, forget_peak, in_own_process, machine, median_seconds, peak_bytes, seconds

PARTS = ("head", "extractor", "parameters", "memory", "others")
GROUPS = [18, 10]  # the paper's clinical variables: interview and blood test
CLASSES = 3
FEATURES = 2048  # of a patch, by ResNet50
BAGS = ((8, 100), (16, 100), (32, 100), (64, 100))
PATCHES = ((1, 1250), (1, 2500), (1, 5000), (1, 10000))  # beyond 1024, where attention dropout ends
OTHERS = (100, 1000, 5000)  # patches of a bag
NETWORKS = ("PersAMHead", "GatedAttentionMILHead")
TORCHMIL = ("ABMIL", "TransMIL")
WITHOUT_TORCHMIL = (
    "torchmil is not installed, so its networks are not measured: pip install torchmil==1.0.2 (into an environment "
    "of its own, or a folder that PYTHONPATH names: it is not needed for anything else)."
)


def measure(
    parts: Sequence[str] = PARTS, threads: int = 2, repeats: int = 7, minutes: float = math.inf
) -> dict[str, Any]:
    """Run the benchmark.

    Args:
        parts: of :data:`PARTS`.
        threads: of PyTorch.
        repeats: of which the median counts.
        minutes: after which nothing more begins.

    Returns:
        JSON-able. Both ratios stand at the top: ``batched_over_single`` and ``extractor_over_default``; what there was
        no time for is named by ``left_out``.
    """
    torch.set_num_threads(threads)
    budget = Budget(minutes)
    results: dict[str, Any] = {"machine": machine(threads)}
    if "head" in parts and budget.admits("head"):
        results |= batched_over_single(repeats, deadline=budget.share(2))
    if "extractor" in parts and budget.admits("extractor"):
        results |= extractor_over_default(min(repeats, 5), deadline=budget.share(2))
    if "memory" in parts:
        for name, sizes in (("memory_by_bags", BAGS), ("memory_by_patches", PATCHES)):
            rows = [
                in_own_process(measure_step, NETWORKS[0], bags, patches, threads, 1)
                for bags, patches in sizes
                if budget.admits(f"{name}, {bags} x {patches}")
            ]
            if rows:
                per_patch = [row["peak_mib"] / (row["bags"] * row["patches"]) for row in rows]
                results |= {name: rows, f"{name}_per_patch_last_over_first": per_patch[-1] / per_patch[0]}
    if "others" in parts:
        installed = importlib.util.find_spec("torchmil") is not None
        names = [*NETWORKS, *TORCHMIL] if installed else NETWORKS
        results["steps"] = [
            in_own_process(measure_step, name, 1, patches, threads, repeats)
            for patches in OTHERS
            for name in names
            if budget.admits(f"steps, {name}, {patches}")
        ]
        if not installed:
            results["note"] = WITHOUT_TORCHMIL
    if "parameters" in parts and budget.admits("parameters"):
        results["parameters"] = parameters()
    return results | ({"left_out": budget.left_out} if budget.left_out else {})


def batched_over_single(
    repeats: int = 7, bags: int = 8, patches: int = 100, deadline: float = math.inf
) -> dict[str, Any]:
    """Forward and backward of the full-width head: bags together against one after another.

    Both add up the gradients of all bags, in the same mode (training, dropout 0.1).

    Args:
        repeats: of which the median counts.
        bags: B.
        patches: N, of each bag.
        deadline: of :func:`time.monotonic`, after which no repeat begins.

    Returns:
        Bags per second of both and, as ``batched_over_single``, how many times the rate batching has, in ``precision``,
        the faster one here; where that is bf16, also with names that end in ``_float32``. (In float32 the matrix
        products of a single bag keep the processor's cores busy already, so batching can save only what lies between
        them.)
    """
    torch.manual_seed(0)
    head = PersAMHead(CLASSES, GROUPS).train()
    head.clinical_encoder.assume_standardised()
    loss = PersAMLoss([1] * CLASSES)
    features, records = torch.randn(bags, head.settings["feature_dim"], patches).relu(), torch.randn(bags, sum(GROUPS))
    labels = torch.arange(bags) % CLASSES

    def run(size: int, precision: str) -> None:
        head.zero_grad()
        for first in range(0, bags, size):
            some = slice(first, first + size)
            with _autocast(precision):
                attention = head.attend(features[some], records[some])
            (loss(attention, labels[some]) * (size / bags)).backward()

    fast = resolve_precision("auto", "cpu")
    results: dict[str, Any] = {"precision": fast}
    for precision in dict.fromkeys((fast, "float32")):
        ending = "" if precision == fast else f"_{precision}"
        contenders = {"batched": partial(run, bags, precision), "single": partial(run, 1, precision)}
        taken = median_seconds(contenders, repeats, deadline)
        results |= {f"{name}_bags_per_s{ending}": bags / value for name, value in taken.items()}
        results[f"batched_over_single{ending}"] = taken["single"] / taken["batched"]
    return results


def extractor_over_default(repeats: int = 5, patches: int = 32, deadline: float = math.inf) -> dict[str, float]:
    """Features of 224-pixel patches by ResNet50: our extractor against MONAI's network as it is built.

    Ours takes bytes in the decoder's order and runs channels-last in the faster precision; the other one takes
    standardised float32 pixels, channels first.

    Args:
        repeats: of which the median counts.
        patches: at once.
        deadline: of :func:`time.monotonic`, after which no repeat begins.

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

    def extract(precision: str) -> Tensor:
        with _autocast(precision):
            features: Tensor = extractor(image)[0].T
        return features

    fast = resolve_precision("auto", "cpu")
    with torch.inference_mode():
        expected = default(pixels)
        error = (extract(fast).float() - expected).norm() / expected.norm()
        contenders: dict[str, Callable[[], Tensor]] = {
            "default": partial(default, pixels),
            "channels_last": partial(extract, "float32"),
        }
        if fast != "float32":
            contenders["ours"] = partial(extract, fast)
        taken = median_seconds(contenders, repeats, deadline)
    taken.setdefault("ours", taken["channels_last"])
    rates = {f"{name}_patches_per_s": patches / value for name, value in taken.items()}
    ratio = taken["default"] / taken["ours"]
    return {**rates, "extractor_over_default": ratio, "extractor_relative_error": error.item()}


def parameters() -> dict[str, dict[str, int]]:
    """Parameters by part: of PersAM as the paper and as the public code have it, and totals of all heads."""
    extractor = resnet50_backbone()
    parts = {}
    for name, hidden in (("paper", 1024), ("public_code", None)):
        network = PersAM(extractor, PersAMHead(CLASSES, GROUPS, projection_hidden=hidden))
        parts[name] = {"extractor": _count(network.extractor)}
        parts[name] |= {part: _count(module) for part, module in network.head.named_children()}
        parts[name]["total"] = _count(network)
    parts["heads"] = {name: _count(head()) for name, head in HEADS.items()}
    return parts


def measure_step(network: str, bags: int, patches: int, threads: int = 2, repeats: int = 5) -> dict[str, Any]:
    """Seconds and peak memory of a training step (forward, loss, backward, SGD); to be called in a process of its own.

    Args:
        network: one of :data:`NETWORKS` or :data:`TORCHMIL`.
        bags: B.
        patches: N.
        threads: of PyTorch.
        repeats: of which the median counts.

    Returns:
        What was asked, ``seconds``, and ``peak_mib`` beyond what the network takes when it rests (parameters,
        gradients and momentum).
    """
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    step = _torchmil_step(network) if network in TORCHMIL else _head_step(network)
    step(1, 16)  # makes gradients and momentum, which do not depend on the bags
    forget_peak()
    rest = peak_bytes()
    taken = [seconds(partial(step, bags, patches)) for _ in range(repeats + 1)]
    measured = {"seconds": median(taken[1:]), "peak_mib": (peak_bytes() - rest) / 2**20}
    return {"network": network, "bags": bags, "patches": patches, **measured}


def _head_step(name: str) -> Callable[[int, int], None]:
    """Training steps of one of our heads with its own loss."""
    head = HEADS[name]().train()
    head.fit_records(torch.randn(100, sum(GROUPS)))
    loss = PersAMLoss([1] * CLASSES)

    def forward(features: Tensor, labels: Tensor) -> Tensor:
        value: Tensor = loss(head.attend(features.transpose(1, 2), torch.randn(len(labels), sum(GROUPS))), labels)
        return value

    return _step(head, forward)


def _torchmil_step(name: str) -> Callable[[int, int], None]:
    """Training steps of one of torchmil's networks, which distinguish two classes."""
    options = {"gated": True} if name == "ABMIL" else {}
    network = getattr(importlib.import_module("torchmil.models"), name)((FEATURES,), **options).train()

    def forward(features: Tensor, labels: Tensor) -> Tensor:
        return functional.binary_cross_entropy_with_logits(network(features), (labels > 0).float())

    return _step(network, forward)


def _step(network: nn.Module, forward: Callable[[Tensor, Tensor], Tensor]) -> Callable[[int, int], None]:
    optimizer = torch.optim.SGD(network.parameters(), 1e-3, momentum=0.9, nesterov=True)

    def step(bags: int, patches: int) -> None:
        features = torch.rand(bags, patches, FEATURES)
        optimizer.zero_grad(set_to_none=False)
        forward(features, torch.arange(bags) % CLASSES).backward()
        optimizer.step()

    return step


def _autocast(precision: str) -> torch.autocast:
    return torch.autocast("cpu", dtype=AUTOCAST[precision], enabled=precision != "float32")


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def main() -> None:
    """Parse the command line, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="parts to measure")
    parser.add_argument("--threads", type=int, default=2, help="threads of PyTorch")
    parser.add_argument("--repeats", type=int, default=7, help="runs of which the median counts")
    parser.add_argument("--minutes", type=float, default=4.0, help="after which nothing more begins")
    asked = parser.parse_args()
    results = measure(asked.only, asked.threads, asked.repeats, asked.minutes)
    print(json.dumps(results, indent=2) if asked.json else as_text(results))


if __name__ == "__main__":
    main()
