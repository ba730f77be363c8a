# SPDX-License-Identifier: Apache-2.0
"""Make a synthetic cohort: slides, table, schema, ground truth, and a README that says what it is."""

from __future__ import annotations

import csv
import multiprocessing
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import imagecodecs
import numpy as np
from tqdm import tqdm

from persam_monai import __version__
from persam_monai.errors import UserError
from persam_monai.synthetic.paint import paint_slide
from persam_monai.synthetic.pyramid import write_pyramid
from persam_monai.synthetic.record import CLASS_NAMES, Patient, Source, draw_patients, draw_record, schema_text
from persam_monai.synthetic.tissue import Kind

MPP = 0.25  # µm/px, a 40× scan
TWO_SLIDES_EVERY = 9  # every ninth patient has a second slide, so that patients and slides are not the same thing
FEWEST_PATIENTS, SMALLEST, LARGEST = 6, 512, 16384  # one round of the design; two patches across; 0.8 GB of pixels
PLAN, RECORD, SLIDE = range(3)  # streams of chance: (seed, stream, patient, slide) alone decides a draw
# Plain ASCII, and without a date, so that it is reproducible.
README = """\
SYNTHETIC DATA: NO PATIENT, NO TISSUE, NO MEASUREMENT
=====================================================

Everything in this folder was drawn by a computer program from random numbers. The slides are paintings that imitate
lymph node stained with haematoxylin and eosin; the clinical records are random draws. The names of diseases and of
clinical variables are borrowed to make the data look familiar. The associations between them are invented and say
nothing about real patients.

How it was made
    program      persam_monai {version}, persam_monai.synthetic
    command      python scripts/make_demo_cohort.py --output DIR --patients {patients} --seed {seed} --size {size}
    patients     {patients} ({slides} slides of {size} x {size} pixels at 0.25 um per pixel)
    seed         {seed} (the same command gives the same bytes)

What is here
    cohort.csv       one row per slide: patient_id, slide, label and the clinical record; empty cells are missing values
    clinical.yaml    the classes and the clinical variables, with their types
    slides/          tiled, pyramidal BigTIFF with JPEG compression
    truth/           what was painted where, and why each patient has the label it has; not for training
                     *.png: one byte per 16 x 16 pixels (0 glass, 1 stroma, 2 DLBCL, 3 FL, 4 reactive)
                     truth.csv: one row per slide

How labels come about
    image       a quarter of the patients: one kind of diseased region on the slide, and it is the label
    record      a quarter: all three kinds or none on the slide; variables of the record name the label, with noise
    ambiguous   half: two kinds on the slide in similar area. A hidden sign, shown with noise by other variables of the
                record, decides: at +1 DLBCL beats FL, FL beats Reactive and Reactive beats DLBCL; at -1 the reverse

What may be concluded
    That a program runs, that it learns something learnable, that it uses image and record together, and whether its
    attention lies on the regions that decide. Also how it compares with another program on this very task.

What may not be concluded
    Anything about lymphoma, real slides, a model's accuracy on patients, or its fitness for diagnosis.
"""


@dataclass(frozen=True)
class _Slide:
    """One slide to paint."""

    folder: Path
    seed: int
    number: int
    copy: int
    size: int
    patient: Patient

    @property
    def name(self) -> str:
        return patient_id(self.number) + (f"_{self.copy + 1}" if self.copy else "")


def make_cohort(
    output: str | Path,
    patients: int = 36,
    seed: int = 0,
    size: int = 4096,
    workers: int | None = None,
    progress: bool = False,
) -> Path:
    """Write a synthetic cohort, a complete ``dataset_dir``; :mod:`persam_monai.synthetic` says what is in it.

    The cohort is made in a hidden folder beside its place and renamed at the end; after an interruption, the same call
    goes on with the slides that are missing. The same seed, number of patients and size give the same bytes, whatever
    the number of workers.

    Args:
        output: folder to make; it may exist if it is empty.
        patients: how many, at least 6.
        seed: 0 or more.
        size: side of each slide in pixels at 0.25 µm/px, 512 to 16384.
        workers: processes that paint side by side (default: one per CPU); 1 paints in this process.
        progress: whether to show a progress bar.

    Returns:
        The folder.

    Raises:
        UserError: if an argument is out of range, the folder holds something, or it cannot be written.
    """
    workers = (os.cpu_count() or 1) if workers is None else workers
    _check(patients=(patients, FEWEST_PATIENTS, 999), seed=(seed, 0, None), size=(size, SMALLEST, LARGEST))
    _check(workers=(workers, 1, None))
    with _made_beside(Path(output), f"{patients}-{seed}-{size}") as folder:
        plan = draw_patients(random_stream(seed, PLAN), patients)
        slides = [
            _Slide(folder, seed, number, copy, size, patient)
            for number, patient in enumerate(plan)
            for copy in range(2 if (number + 1) % TWO_SLIDES_EVERY == 0 else 1)
        ]
        for name in ("slides", "truth"):
            (folder / name).mkdir(exist_ok=True)
        bar = tqdm(_painted(slides, workers), total=len(slides), desc="slides", unit="slide", disable=not progress)
        _write_table(folder / "truth" / "truth.csv", list(bar))
        _write_table(folder / "cohort.csv", [_row(slide) for slide in slides])
        (folder / "clinical.yaml").write_text(schema_text(), encoding="utf-8")
        settings = {"patients": patients, "slides": len(slides), "seed": seed, "size": size}
        (folder / "README.txt").write_text(README.format(version=__version__, **settings), encoding="utf-8")
    return Path(output)


def patient_id(number: int) -> str:
    """The identifier of the patient with this number, counted from 0."""
    return f"P{number + 1:03d}"


def random_stream(*key: int) -> np.random.Generator:
    """A generator that ``key`` (seed, stream, patient, slide) alone decides."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))


def _check(**limits: tuple[int, int, int | None]) -> None:
    for name, (value, low, high) in limits.items():
        if value < low or (high is not None and value > high):
            allowed = f"at least {low}" if high is None else f"{low} to {high}"
            raise UserError(f"--{name} is {value}; expected {allowed}.")


@contextmanager
def _made_beside(output: Path, settings: str) -> Iterator[Path]:
    """A folder to write into, which becomes ``output`` at the end, or waits to be completed by the same settings."""
    place = output.resolve()
    if place.exists() and (not place.is_dir() or any(place.iterdir())):
        what = "already holds files" if place.is_dir() else "is a file"
        raise UserError(f"--output {output} {what}. Nothing was changed; name a new folder, or empty this one first.")
    if place.is_mount():  # cannot be renamed onto
        raise UserError(f"--output {output} is a mount point; name a new folder inside it.")
    try:
        folder = place.parent / f".{place.name}.{settings}.partial"
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--output {output} cannot be made: {error}. Name a folder that you may write to.") from error
    yield folder
    folder.rename(place)


def _painted(slides: Sequence[_Slide], workers: int) -> Iterator[dict[str, object]]:
    """Make the slides; yields their rows of ground truth in the order of ``slides``."""
    if min(workers, len(slides)) == 1:
        yield from map(_make_slide, slides)
        return
    context = multiprocessing.get_context("spawn")  # a fork of a process with threads (torch, a notebook) may hang
    pool = ProcessPoolExecutor(min(workers, len(slides)), mp_context=context)
    try:
        yield from pool.map(_make_slide, slides)
    except BrokenProcessPool as error:
        raise UserError("A worker was killed, most likely for want of memory: use fewer --workers.") from error
    finally:
        pool.shutdown(cancel_futures=True)


def _make_slide(slide: _Slide) -> dict[str, object]:
    rng = random_stream(slide.seed, SLIDE, slide.number, slide.copy)
    kinds = [slide.patient.kinds[place] for place in rng.permutation(len(slide.patient.kinds))]
    truth = slide.folder / "truth" / f"{slide.name}.png"  # written last: where it is, the slide is whole
    if not truth.exists():
        painting = paint_slide(rng, slide.size, kinds)
        write_pyramid(slide.folder / "slides" / f"{slide.name}.tif", painting.image, MPP)
        truth.with_suffix(".partial").write_bytes(imagecodecs.png_encode(painting.kinds))
        truth.with_suffix(".partial").replace(truth)
    painted = imagecodecs.png_decode(truth.read_bytes())
    areas = np.bincount(painted.ravel(), minlength=len(Kind)) / painted.size
    patient = slide.patient
    return {
        "slide": f"slides/{slide.name}.tif",
        "patient_id": patient_id(slide.number),
        "decided_by": patient.source.value,
        "kinds": "+".join(CLASS_NAMES[kind] for kind in patient.kinds),
        "deciding_kind": "" if patient.source is Source.RECORD else CLASS_NAMES[patient.label],
        "sign": f"{patient.sign:+d}",
        "label": CLASS_NAMES[patient.label],
        **{f"area_{kind.name.lower()}": f"{areas[kind]:.4f}" for kind in Kind},
    }


def _row(slide: _Slide) -> dict[str, object]:
    """The slide's row of the cohort table."""
    patient = slide.patient
    mark = patient.label if patient.source is Source.RECORD else None
    return {
        "patient_id": patient_id(slide.number),
        "slide": f"slides/{slide.name}.tif",
        "label": CLASS_NAMES[patient.label],
        **draw_record(random_stream(slide.seed, RECORD, slide.number), patient.sign, mark),
    }


def _write_table(path: Path, rows: Iterable[dict[str, object]]) -> None:
    rows = list(rows)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
