# SPDX-License-Identifier: Apache-2.0
"""The README that lies in every synthetic cohort."""

from __future__ import annotations

from persam_monai import __version__

TEXT = """\
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


def readme_text(patients: int, slides: int, seed: int, size: int) -> str:
    """The text of a cohort's ``README.txt``; plain ASCII, and without a date, so that it is reproducible."""
    return TEXT.format(version=__version__, patients=patients, slides=slides, seed=seed, size=size)
