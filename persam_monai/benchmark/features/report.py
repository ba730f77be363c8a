# SPDX-License-Identifier: Apache-2.0
"""All measurements of features, as one object and as text, beside what must hold."""

from __future__ import annotations

import os
import platform
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from persam_monai.benchmark.features.extraction import ExtractionEffort, measure_extraction
from persam_monai.benchmark.features.folder import Sizes, write_folder
from persam_monai.benchmark.features.training import Run, measure_training
from persam_monai.benchmark.reading.slides import jpeg_slide
from persam_monai.benchmark.turns import Budget
from persam_monai.slides import Slide
from persam_monai.text_table import text_table

PARTS = ("extraction", "training")
LIBRARIES = ("torch", "monai", "h5py", "cucim-cu13")
SIDE = 4096  # px, of the slide that is painted: some 320 patches
# What must hold.
LEAST_OVER_SLOWER = 0.9  # of the extraction
MOST_START = 10.0  # s
MOST_OVER_BARE = 2.0
MOST_PEAK = 6.0  # GB


@dataclass(frozen=True)
class TrainingEffort:
    """What is measured of the training.

    Attributes:
        sizes: of the cohort.
        caches: ``cache_gb`` of each run; for the first, figures must hold, the others show what happens.
        precisions: of the network; with the caches after the first, the last one alone.
        device: runs the network.
        threads: of PyTorch.
        stretches: see :class:`~persam_monai.benchmark.features.Run`.
        batches: of each stretch; ``None`` for the whole epoch.
        cold: let the system forget the files before each run.
    """

    sizes: Sizes = Sizes()  # noqa: RUF009
    caches: Sequence[float] = (4.0, 1.0)
    precisions: Sequence[str] = ("float32", "bf16")
    device: str = "cpu"
    threads: int = 2
    stretches: int = 8
    batches: int | None = 15
    cold: bool = True


def measure(
    parts: Sequence[str] = PARTS,
    slides: Sequence[Path] = (),
    extraction: ExtractionEffort = ExtractionEffort(),  # noqa: B008
    training: TrainingEffort = TrainingEffort(),
    folder: Path | None = None,
    side: int = SIDE,
    minutes: float = float("inf"),
) -> dict[str, Any]:
    """Run the benchmark. What it writes is removed again.

    Args:
        parts: of :data:`PARTS`.
        slides: to extract from besides the one that is painted.
        extraction: how much work the extraction is.
        training: what is measured of the training.
        folder: where a folder for slide and features is made; by default where temporary files go.
        side: of the slide that is painted, in pixels; see :func:`~persam_monai.benchmark.reading.slides.jpeg_slide`.
        minutes: after which nothing more is begun.

    Returns:
        JSON-able: ``machine``, a key for each of ``parts``, ``must_hold``: see :func:`verdicts`, and ``left_out``: what
        there was no time for.

    Raises:
        UserError: if a slide cannot be read, or there is no room for the features.
    """
    for path in slides:
        Slide(path).close()  # what cannot be opened is better known before minutes are spent
    found: dict[str, Any] = {"machine": _machine(training.threads)}
    budget = Budget(minutes)
    with tempfile.TemporaryDirectory(dir=folder) as name:
        if "extraction" in parts:
            paths = [jpeg_slide(Path(name), side), *slides]
            found["extraction"] = [
                measure_extraction(path, extraction) for path in paths if budget.admits(f"extraction from {path.name}")
            ]
        if "training" in parts and budget.admits("training"):
            found["training"] = _measure_training(Path(name), training, budget)
    return {**found, "must_hold": verdicts(found), "left_out": budget.left_out}


def _measure_training(folder: Path, effort: TrainingEffort, budget: Budget) -> dict[str, Any]:
    write_folder(folder, effort.sizes)
    runs: list[dict[str, Any]] = []
    for cache in effort.caches:
        for precision in effort.precisions if cache == effort.caches[0] else effort.precisions[-1:]:
            if runs and not budget.admits(f"training, cache_gb {cache:g}, {precision}"):
                continue
            run = Run(
                str(folder),
                effort.sizes,
                cache,
                precision,
                effort.device,
                effort.threads,
                effort.stretches,
                effort.batches,
                effort.cold,
            )
            runs.append({"cache_gb": cache, "precision": precision, **measure_training(run)})
    sizes = {**vars(effort.sizes), "gb": effort.sizes.gb}
    return {"sizes": sizes, "device": effort.device, "cache_gb": effort.caches[0], "runs": runs}


def verdicts(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What must hold, and whether it does.

    Args:
        found: from :func:`measure`.

    Returns:
        For each: ``what``, the ``figure``, the ``bound`` in words, and whether it ``holds``.
    """
    rows = []
    for slide in found.get("extraction", []):
        for precision, rates in slide["precisions"].items():
            ratio = rates["extraction_over_slower"]
            what = f"extraction from {slide['file']} by the slower of network and reader, {precision}"
            rows.append((what, ratio, f"at least {LEAST_OVER_SLOWER:g}", ratio >= LEAST_OVER_SLOWER))
    training = found.get("training", {"runs": [], "cache_gb": None})
    for run in training["runs"]:
        if run["cache_gb"] != training["cache_gb"]:
            continue
        of = f"cache_gb {run['cache_gb']:g}, {run['precision']}"
        rows.append(
            (f"seconds to the first batch, {of}", run["start_s"], f"below {MOST_START:g}", run["start_s"] < MOST_START)
        )
        for which in ("first", "later"):
            ratio = run[f"{which}_epoch_over_bare"]
            rows.append(
                (
                    f"{which} epoch by the bare computation, {of}",
                    ratio,
                    f"at most {MOST_OVER_BARE:g}",
                    ratio <= MOST_OVER_BARE,
                )
            )
        rows.append((f"GB of memory, {of}", run["peak_gb"], f"below {MOST_PEAK:g}", run["peak_gb"] < MOST_PEAK))
    return [dict(zip(("what", "figure", "bound", "holds"), row, strict=True)) for row in rows]


def table(found: Mapping[str, Any]) -> str:
    """The measurements for the terminal."""
    lines = [", ".join(f"{name} {value}" for name, value in found["machine"].items())]
    for slide in found.get("extraction", []):
        lines += ["", *_extraction_lines(slide)]
    if "training" in found:
        lines += ["", *_training_lines(found["training"])]
    rows = [[row["what"], f"{row['figure']:.3g}", row["bound"], _verdict(row["holds"])] for row in found["must_hold"]]
    if found.get("left_out"):
        lines += ["", f"Left out for want of time (--minutes): {'; '.join(found['left_out'])}."]
    return "\n".join([*lines, "", "What must hold:", *text_table(["", "measured", "bound", ""], rows, right=[1])])


def _verdict(holds: bool) -> str:
    return "holds" if holds else "FALLS SHORT"


def _extraction_lines(slide: Mapping[str, Any]) -> Iterator[str]:
    yield (
        f"Extraction by ResNet50 on {slide['device']} from {slide['copies']} x {slide['file']}, in all "
        f"{slide['patches']:,} patches of 224 px at "
        f"{slide['mpp']:g} µm per pixel;"
    )
    yield "patches per second, without looking for tissue, with writing:"
    rows = [
        [
            precision,
            *(f"{rates[f'{name}_patches_per_s']:.1f}" for name in ("network", "reader", "extraction")),
            f"{rates['extraction_over_slower']:.3f}",
        ]
        for precision, rates in slide["precisions"].items()
    ]
    heading = ["", "network alone", "reader alone", "extraction", "by the slower"]
    yield from text_table(heading, rows, right=range(1, 5))


def _training_lines(training: Mapping[str, Any]) -> Iterator[str]:
    sizes, runs = training["sizes"], training["runs"]
    yield (
        f"Training on {training['device']} with {sizes['files']:,} files of {sizes['patches']:,} x "
        f"{sizes['features']:,} features, {sizes['gb']:.1f} GB;"
    )
    yield (
        f"an epoch is {runs[0]['bags']:,} bags of {sizes['bag_size']} from {sizes['training']} slides, "
        f"{sizes['batch_size']} in a batch:"
    )
    first = {run["measured"]["epoch"] == "first" for run in runs} == {True}
    named = {
        "files at the start": lambda run: "on disk" if run["cold"] else "in memory, perhaps",
        "s to the first batch": lambda run: _number(run["start_s"]),
        "s, bags alone, first time": lambda run: _number(run["first_pass_s"]),
        "s, bags alone, later": lambda run: _number(run["later_pass_s"]),
        "s, bare computation": lambda run: _number(run["bare_s"]),
        f"s, {'first' if first else 'later'} epoch": lambda run: _number(run["epoch_s"]),
        "batches measured of it": lambda run: f"{run['measured']['batches']:,} of {run['measured']['of']:,}",
        "first epoch by bare" + ("" if first else " (*)"): lambda run: _number(run["first_epoch_over_bare"]),
        "later epoch by bare" + (" (*)" if first else ""): lambda run: _number(run["later_epoch_over_bare"]),
        "GB of memory at most": lambda run: _number(run["peak_gb"]),
    }
    heading = ["cache_gb, precision", *(f"{run['cache_gb']:g}, {run['precision']}" for run in runs)]
    rows = [[name, *(show(run) for run in runs)] for name, show in named.items()]
    yield from text_table(heading, rows, right=range(1, len(heading)))
    yield "  (*) the bare computation and the bags alone, one after the other"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}" if value < 100 else f"{value:.0f}"


def _machine(threads: int) -> dict[str, Any]:
    libraries = {name: version(name) for name in LIBRARIES}
    return {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": threads,
        **libraries,
    }
