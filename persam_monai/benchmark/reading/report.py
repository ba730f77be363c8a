# SPDX-License-Identifier: Apache-2.0
"""All measurements of reading, as one object and as text."""

from __future__ import annotations

import math
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from persam_monai.benchmark.reading.effort import Effort
from persam_monai.benchmark.reading.endurance import BAGS, HUGE, SLIDES, measure_index, measure_memory
from persam_monai.benchmark.reading.parts import measure_half_scale, measure_jpeg, measure_jpeg2000
from persam_monai.benchmark.reading.slides import SIDES, jpeg2000_slide, jpeg_slide
from persam_monai.benchmark.reading.subject import SIZE, Subject, open_subject
from persam_monai.slides import Slide

LIBRARIES = ("cucim-cu13", "imagecodecs", "monai", "openslide-bin", "pillow", "simplejpeg", "torch")


class Part(NamedTuple):
    """What a part needs: its slide, its measurement, and the µm per pixel of its patches by the slide's own."""

    make: Callable[[Path, int], Path]
    measure: Callable[[Subject, Effort], dict[str, Any]]
    scale: float


PARTS = {
    "jpeg": Part(jpeg_slide, measure_jpeg, 1.0),
    "jpeg2000": Part(jpeg2000_slide, measure_jpeg2000, 1.0),
    "half_scale": Part(jpeg_slide, measure_half_scale, 2.0),
}


ENDURANCE: dict[str, Callable[[Path, int, Effort], dict[str, Any]]] = {
    "memory": lambda folder, side, effort: measure_memory(
        jpeg_slide(folder, side),
        folder,
        BAGS if effort.patches is None else SLIDES * 2,
        effort.bag_size,
        effort.deadline,
    ),
    "index": lambda folder, side, effort: measure_index(
        folder, HUGE if effort.patches is None else side, effort.deadline
    ),
}


def measure(
    folder: Path,
    parts: Sequence[str] = (*PARTS, *ENDURANCE),
    slides: Sequence[Path] = (),
    effort: Effort = Effort(),  # noqa: B008
    side: int = SIDES[-1],
    minutes: float = math.inf,
) -> dict[str, Any]:
    """Run the benchmark.

    Args:
        folder: where the slides are made, or are already.
        parts: of :data:`PARTS` and :data:`ENDURANCE`.
        slides: more slides to measure, of any format.
        effort: how much work a measurement is.
        side: of the slides that are made, in pixels; one of :data:`~persam_monai.benchmark.reading.slides.SIDES`.
        minutes: that all may take, about. Each part has its share of what is left of them, and leaves out what does not
            fit: first repeats, then rows, which it names.

    Returns:
        JSON-able: a key for each of ``parts``, and ``slides`` with what applies to each of ``slides``.

    Raises:
        UserError: if a slide cannot be read, or none can be made in ``folder``.
    """
    for path in slides:
        Slide(path).close()  # what cannot be opened is better known before minutes are spent
    found: dict[str, Any] = {"machine": _machine(), "settings": _settings(effort)}
    end = time.perf_counter() + 60 * minutes

    def limited(shares: int) -> Effort:
        now = time.perf_counter()
        return replace(effort, deadline=now + (end - now) / shares)

    for done, name in enumerate(parts):
        shares = len(parts) + len(slides) - done
        if name in ENDURANCE:
            found[name] = ENDURANCE[name](folder, side, limited(shares))
            continue
        made = PARTS[name].make(folder, side)
        subject = open_subject(made, PARTS[name].scale, effort.bag_size)
        found[name] = PARTS[name].measure(subject, limited(shares))
    if slides:
        found["slides"] = [dict(_of_slide(path, limited(len(slides) - done))) for done, path in enumerate(slides)]
    return found


def table(found: Mapping[str, Any]) -> str:
    """The measurements for the terminal."""
    return "\n".join(_lines(found, ""))


def _of_slide(path: Path, effort: Effort) -> Iterator[tuple[str, dict[str, Any]]]:
    """The parts that apply to a slide that was given."""
    subject = open_subject(path, 1.0, effort.bag_size)
    if subject.tiles is None or subject.tiles.codec != "jpeg":
        yield "jpeg2000" if subject.tiles else "other", measure_jpeg2000(subject, effort)
        return
    yield "jpeg", measure_jpeg(subject, effort)
    half = open_subject(path, PARTS["half_scale"].scale, effort.bag_size)
    if half.tiles is not None:  # else the slide has a level of that resolution
        yield "half_scale", measure_half_scale(half, effort)


def _lines(found: Mapping[str, Any], margin: str) -> Iterator[str]:
    """A line for each number, lists and objects indented below their name."""
    for name, value in found.items():
        entries = value if isinstance(value, list) else [value]
        if not all(isinstance(entry, Mapping) for entry in entries):
            yield f"{margin}{name:<{52 - len(margin)}}{_shown(value)}"
            continue
        for entry in entries:
            yield f"{margin}{name}:"
            yield from _lines(entry, margin + "  ")


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return (", " if isinstance(value[0], str) else " x ").join(map(str, value))
    if isinstance(value, float):
        return f"{value:10.0f}" if value >= 100 else f"{value:10.3g}"
    return str(value)


def _machine() -> dict[str, Any]:
    libraries = {name: version(name) for name in LIBRARIES}
    return {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count(), **libraries}


def _settings(effort: Effort) -> dict[str, Any]:
    amount = {"seconds": effort.seconds} if effort.patches is None else {"patches": effort.patches}
    return {"patch_pixels": SIZE, "bag_size": effort.bag_size, "repeats": effort.repeats, **amount}
