# SPDX-License-Identifier: Apache-2.0
"""Time and memory of a training step, each in its own process: ``python -m persam_monai.benchmark.network.steps``."""

from __future__ import annotations

import argparse
import importlib
import json
import re
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from persam_monai.losses import PersAMLoss
from persam_monai.networks import HEADS

FEATURES = 2048  # of a patch, by ResNet50
CLASSES = 3
GROUPS = [18, 10]  # the paper's clinical variables
NETWORKS = {
    "persam": "PersAMHead",
    "gated_attention_mil": "GatedAttentionMILHead",
    "torchmil_abmil": "ABMIL",
    "torchmil_transmil": "TransMIL",
}
Step = Callable[[int, int], None]


def measure_step(network: str, bags: int, patches: int, threads: int = 2, repeats: int = 5) -> dict[str, Any]:
    """Seconds and peak memory of a training step (forward, loss, backward, SGD), in a process of its own.

    Args:
        network: one of :data:`NETWORKS`.
        bags: B.
        patches: N.
        threads: of PyTorch.
        repeats: of which the median counts.

    Returns:
        What was asked, ``seconds``, and ``peak_mib`` beyond what the network takes when it rests (parameters,
        gradients and momentum).

    Raises:
        RuntimeError: if the process fails; with what it printed.
    """
    words = [sys.executable, "-m", "persam_monai.benchmark.network.steps", network]
    words += [str(number) for number in (bags, patches, threads, repeats)]
    result = subprocess.run(words, capture_output=True, text=True)
    if result.returncode != 0:
        raise RuntimeError(f"{' '.join(words)} failed:\n{result.stderr[-2000:]}")
    measured: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return measured


def has_torchmil() -> bool:
    """Whether torchmil, which the comparison needs, can be imported."""
    try:
        importlib.import_module("torchmil.models")
    except ImportError:
        return False
    return True


def _our_step(name: str) -> Step:
    """Training steps of one of our heads with its own loss."""
    head = HEADS[name]().train()
    head.fit_records(torch.randn(100, sum(GROUPS)))
    loss = PersAMLoss([1] * CLASSES)

    def forward(features: Tensor, labels: Tensor) -> Tensor:
        value: Tensor = loss(head.attend(features.transpose(1, 2), torch.randn(len(labels), sum(GROUPS))), labels)
        return value

    return _step(head, forward)


def _torchmil_step(name: str) -> Step:
    """Training steps of one of torchmil's networks, which tell two classes apart."""
    options = {"gated": True} if name == "ABMIL" else {}
    network = getattr(importlib.import_module("torchmil.models"), name)((FEATURES,), **options).train()

    def forward(features: Tensor, labels: Tensor) -> Tensor:
        return functional.binary_cross_entropy_with_logits(network(features), (labels > 0).float())

    return _step(network, forward)


def _step(network: nn.Module, forward: Callable[[Tensor, Tensor], Tensor]) -> Step:
    optimizer = torch.optim.SGD(network.parameters(), 1e-3, momentum=0.9, nesterov=True)

    def step(bags: int, patches: int) -> None:
        features = torch.rand(bags, patches, FEATURES)
        optimizer.zero_grad(set_to_none=False)
        forward(features, torch.arange(bags) % CLASSES).backward()
        optimizer.step()

    return step


def _peak_kib() -> int:
    """The most memory that this process has held."""
    status = Path("/proc/self/status")
    found = re.search(r"VmHWM:\s+(\d+)", status.read_text()) if status.exists() else None
    return int(found[1]) if found else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _forget_peak() -> None:
    """Let the peak begin at what is held now, where the system can do that."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # 5: see proc(5)


def main() -> None:
    """Measure and print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("network", choices=NETWORKS)
    for name in ("bags", "patches", "threads", "repeats"):
        parser.add_argument(name, type=int)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    torch.manual_seed(0)
    name = NETWORKS[asked.network]
    step = _our_step(name) if name in HEADS else _torchmil_step(name)
    step(1, 16)  # makes gradients and momentum, which do not depend on the bags
    _forget_peak()
    rest, seconds = _peak_kib(), []
    for _ in range(asked.repeats + 1):
        start = time.perf_counter()
        step(asked.bags, asked.patches)
        seconds.append(time.perf_counter() - start)
    measured = {"seconds": median(seconds[1:]), "peak_mib": (_peak_kib() - rest) / 1024}
    print(json.dumps({"network": asked.network, "bags": asked.bags, "patches": asked.patches, **measured}))


if __name__ == "__main__":
    main()
