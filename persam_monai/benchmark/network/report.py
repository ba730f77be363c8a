# SPDX-License-Identifier: Apache-2.0
"""All measurements, as one object and as text."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from typing import Any

import torch

from persam_monai.benchmark.network.rates import batched_over_single, extractor_over_default, parameters
from persam_monai.benchmark.network.steps import NETWORKS, has_torchmil, measure_step
from persam_monai.benchmark.turns import Budget

PARTS = ("head", "extractor", "parameters", "memory", "others")
BAGS = ((8, 100), (16, 100), (32, 100), (64, 100))
PATCHES = ((1, 1250), (1, 2500), (1, 5000), (1, 10000))  # beyond 1024, where attention dropout ends
OTHERS = (100, 1000, 5000)
WITHOUT_TORCHMIL = (
    "torchmil is not installed, so its networks are not measured: pip install torchmil==1.0.2 (into an environment "
    "of its own, or a folder that PYTHONPATH names: it is not needed for anything else)."
)


def measure(
    parts: Sequence[str] = PARTS, threads: int = 2, repeats: int = 7, minutes: float = float("inf")
) -> dict[str, Any]:
    """Run the benchmark.

    Args:
        parts: of :data:`PARTS`.
        threads: of PyTorch.
        repeats: of which the median counts.
        minutes: after which nothing more is begun.

    Returns:
        JSON-able. Both ratios stand at the top: ``batched_over_single`` and ``extractor_over_default``; what there was
        no time for is named by ``left_out``.
    """
    torch.set_num_threads(threads)
    budget = Budget(minutes)
    found: dict[str, Any] = {"machine": _machine(threads)}
    if "head" in parts and budget.admits("head"):
        found |= batched_over_single(repeats)
    if "extractor" in parts and budget.admits("extractor"):
        found |= extractor_over_default(min(repeats, 5))
    if "memory" in parts:
        for name, sizes in (("memory_by_bags", BAGS), ("memory_by_patches", PATCHES)):
            rows = [
                measure_step("persam", bags, patches, threads, 1)
                for bags, patches in sizes
                if budget.admits(f"{name}, {bags} x {patches}")
            ]
            if not rows:
                continue
            found[name] = rows
            per_patch = [row["peak_mib"] / (row["bags"] * row["patches"]) for row in rows]
            found[f"{name}_per_patch_last_over_first"] = per_patch[-1] / per_patch[0]
    if "others" in parts:
        there = has_torchmil()
        names = [name for name in NETWORKS if there or not name.startswith("torchmil")]
        found["steps"] = [
            measure_step(name, 1, patches, threads, repeats)
            for patches in OTHERS
            for name in names
            if budget.admits(f"steps, {name}, {patches}")
        ]
        if not there:
            found["note"] = WITHOUT_TORCHMIL
    if "parameters" in parts and budget.admits("parameters"):
        found["parameters"] = parameters()
    if budget.left_out:
        found["left_out"] = ", ".join(budget.left_out)
    return found


def table(found: dict[str, Any]) -> str:
    """The measurements for the terminal."""
    lines = []
    for name, value in found.items():
        if isinstance(value, list):
            lines.append(f"{name}:")
            lines += [
                f"  {row['network']:<22}{row['bags']:>4} x {row['patches']:<7}{row['seconds'] * 1e3:>10.1f} ms"
                f"{row['peak_mib']:>10.0f} MiB"
                for row in value
            ]
        elif isinstance(value, dict):
            lines.append(f"{name}:")
            lines += [f"  {key:<22}{_shown(entry)}" for key, entry in value.items()]
        else:
            lines.append(f"{name:<36}{_shown(value)}")
    return "\n".join(lines)


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_shown(entry)}" for key, entry in value.items())
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _machine(threads: int) -> dict[str, Any]:
    return {"processor": platform.processor() or platform.machine(), "threads": threads, "torch": torch.__version__}
