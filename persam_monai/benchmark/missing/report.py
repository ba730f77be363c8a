# SPDX-License-Identifier: Apache-2.0
"""All contenders on all seeds, as one object and as text."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from statistics import mean, stdev
from typing import Any

import torch

from persam_monai.benchmark.missing.bags import draw_parts
from persam_monai.benchmark.missing.training import Contender, Effort, accuracy, train
from persam_monai.networks.clinical_encoder import MISSING

Row = tuple[Contender, float]  # and the share of the variables that is masked in the test records
# Contrast and effort were chosen on seeds 0 to 4, by the accuracy of median filling on full records.
SEEDS = tuple(range(100, 110))
SHARES = (0.3, 0.5)
CONTRAST = 6.0  # a kind's direction in deviations of the noise: single patches are told apart with few errors


def measure(
    seeds: Sequence[int] = SEEDS,
    shares: Sequence[float] = SHARES,
    clinical_dropout: float = 0.2,
    patients: int = 200,
    test_patients: int = 400,
    effort: Effort | None = None,
    threads: int = 1,
    progress: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Run the benchmark.

    Every seed is a cohort of its own, on which all contenders are trained and tested: differences are paired.

    Args:
        seeds: of the cohorts, at least one.
        shares: of the variables to mask, each above 0.
        clinical_dropout: to compare with none.
        patients: to train on.
        test_patients: others, to test on.
        effort: how heads are trained.
        threads: of PyTorch.
        progress: is told each seed when it is done.

    Returns:
        JSON-able: ``settings``; ``accuracies``, a row for each contender and share of the test records; and
        ``differences`` between two such rows. Rows hold ``mean``, ``standard_error`` over seeds (``None`` for a
        single seed) and ``values`` by seed.

    Raises:
        ValueError: if there is no seed, a seed or share comes twice, a share is not in (0, 1), or
            ``clinical_dropout`` is 0.
    """
    if not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f"seeds must name at least one, and each once, got {list(seeds)}.")
    if len(set(shares)) < len(shares) or not all(0 < share < 1 for share in shares):
        raise ValueError(f"shares must be between 0 and 1, and each there once, got {list(shares)}.")
    if clinical_dropout == 0:
        raise ValueError("clinical_dropout must be above 0: it is compared with 0.")
    torch.set_num_threads(threads)
    effort = effort or Effort()
    tested_on = (0.0, *shares)
    found: dict[Row, list[float]] = {}
    for seed in seeds:
        training, testing = draw_parts(seed, (patients, test_patients), contrast=CONTRAST)
        for contender in _contenders(shares, clinical_dropout):
            head = train(contender, training, effort, seed)
            for share in tested_on if contender.trained_on == 0 else (contender.trained_on,):
                found.setdefault((contender, share), []).append(accuracy(head, testing, share))
        if progress is not None:
            progress(seed)
    settings = {"seeds": list(seeds), "patients": patients, "test_patients": test_patients, "contrast": CONTRAST}
    return {
        "settings": settings | asdict(effort) | {"torch": torch.__version__},
        "accuracies": [{**_named(row), **_summary(values)} for row, values in found.items()],
        "differences": _differences(found, shares, clinical_dropout),
    }


def _contenders(shares: Sequence[float], clinical_dropout: float) -> list[Contender]:
    whole = [Contender(0.0, missing, rate) for rate in (0.0, clinical_dropout) for missing in MISSING]
    return whole + [Contender(share, missing) for share in shares for missing in MISSING]


def _differences(found: dict[Row, list[float]], shares: Sequence[float], rate: float) -> list[dict[str, Any]]:
    """What masking costs, what learning about absence is worth, and what clinical dropout is worth."""
    rows = []

    def add(what: str, row: Row, *others: Row) -> None:
        """A row minus another, or two such differences' difference."""
        signs = (1, -1, -1, 1)[: 1 + len(others)]
        by_seed = zip(*(found[one] for one in (row, *others)), strict=True)
        values = [sum(sign * value for sign, value in zip(signs, each, strict=True)) for each in by_seed]
        rows.append({"what": what, **_named(row), **_summary(values)})

    for contender, share in found:
        if contender.missing == "learned":
            median = Contender(contender.trained_on, "median", contender.clinical_dropout)
            add("learned - median", (contender, share), (median, share))
    for contender, share in found:
        if contender.clinical_dropout > 0:
            without = Contender(contender.trained_on, contender.missing)
            add("clinical dropout - none", (contender, share), (without, share))
    for share in shares:
        masked, full = ([(Contender(on, missing), on) for missing in MISSING] for on in (share, 0.0))
        for one, other in zip(masked, full, strict=True):
            add("masked - full", one, other)
        add("the same, learned - median", masked[1], full[1], masked[0], full[0])
    return rows


def _named(row: Row) -> dict[str, Any]:
    contender, share = row
    return {**asdict(contender), "tested_on": share}


def _summary(values: Sequence[float]) -> dict[str, Any]:
    error = stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None
    return {"mean": mean(values), "standard_error": error, "values": list(values)}


def table(found: dict[str, Any]) -> str:
    """The measurements for the terminal: mean and standard error, in per cent of the test patients."""
    settings = found["settings"]
    lines = [
        f"{len(settings['seeds'])} seeds; {settings['patients']} patients to train on, "
        f"{settings['test_patients']} to test on; shares are of masked variables",
        f"{'accuracy':<28}{'training':>9}{'test':>6}  {'missing':<9}{'clinical dropout':>16}{'%':>9}{'error':>7}",
    ]
    lines += [_line("", row, "") for row in found["accuracies"]]
    lines.append("difference")
    lines += [_line(row["what"], row, "+") for row in found["differences"]]
    return "\n".join(lines)


def _line(what: str, row: dict[str, Any], sign: str) -> str:
    error = "" if row["standard_error"] is None else f"{100 * row['standard_error']:.2f}"
    return (
        f"{what:<28}{row['trained_on']:>9.2g}{row['tested_on']:>6.2g}  {row['missing']:<9}"
        f"{row['clinical_dropout']:>16.2g}{100 * row['mean']:>{sign}9.2f}{error:>7}"
    )
