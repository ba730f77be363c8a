# SPDX-License-Identifier: Apache-2.0
"""Extraction as users type it: interrupted, in parts, and with settings that cannot be meant."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import h5py
import pytest

from persam_monai.data import write_features
from persam_monai.engines import extraction
from persam_monai.synthetic import write_pyramid
from tests.bundle.running import CONFIGS, INFERENCE, ROOT, SMALL_EXTRACTOR, command, run_bundle, run_well
from tests.data.making import Picture, garble

EXTRACTING = [CONFIGS / "extract.json", SMALL_EXTRACTOR]
SLIDES = 8


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory, picture: Picture) -> Path:
    """A folder with a table and nothing else: no labels, no clinical.yaml, cells that no schema would admit."""
    folder = tmp_path_factory.mktemp("extracted") / "data"
    (folder / "slides").mkdir(parents=True)
    lines = ["patient_id,slide,age"]
    for i in range(SLIDES):
        write_pyramid(folder / f"slides/{i}.tif", picture(1024, 1024, i), mpp=0.25)
        lines.append(f"P,slides/{i}.tif,#REF!")
    (folder / "cohort.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def extracted(slides: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Features of all slides, undisturbed, by two workers."""
    result = run_well("extracting", EXTRACTING, dataset_dir=slides, num_workers=2, **quick(slides.parent))
    assert f"Features of {SLIDES} slides are in {slides / 'features'}: {SLIDES} written now" in result.stdout
    return slides / "features"


def quick(folder: Path) -> dict[str, Any]:
    return {"extractor_batch": 3, "index_dir": folder / "index"}


def stop_at_the_third_file(number: int) -> None:
    """Send this process a signal while the third file is written; called by the config of an interrupted extraction."""
    files = []

    def write(path: Path, *content: Any) -> None:
        files.append(path)
        if len(files) == 3:
            os.kill(os.getpid(), number)
        write_features(path, *content)

    extraction.write_features = write  # type: ignore[assignment]


def contents(folder: Path) -> dict[str, str]:
    """SHA-256 of all files, hidden ones too."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in ("extractor.pt", "extraction.log")
    }


def test_every_slide_has_a_file_below_its_own_folder(extracted: Path) -> None:
    names = [f"slides/{i}.h5" for i in range(SLIDES)]
    assert list(contents(extracted)) == names
    with h5py.File(extracted / names[0]) as file:
        assert file["features"].shape == (16, 32)
        assert file["features"].dtype == "float16"
    assert (extracted / "extractor.pt").is_file()


@pytest.mark.parametrize(
    "number",
    [signal.SIGKILL, *(pytest.param(number, marks=pytest.mark.slow) for number in (signal.SIGTERM, signal.SIGINT))],
)
def test_an_extraction_that_was_stopped_goes_on_to_the_same_files(
    extracted: Path, slides: Path, tmp_path: Path, number: int
) -> None:
    features = tmp_path / "features"
    settings = {"dataset_dir": slides, "features_dir": features, **quick(slides.parent)}
    module = "$__import__('importlib').import_module('tests.bundle.test_extracting')"
    (tmp_path / "stop.json").write_text(json.dumps({"+initialize": [f"{module}.stop_at_the_third_file({number})"]}))
    # A shell that runs the tests in the background lets them, and all they start, ignore Ctrl-C.
    words = command("extracting", [*EXTRACTING, tmp_path / "stop.json"], **settings, num_workers=1)
    result = subprocess.run(["env", "--default-signal=INT", *words], cwd=ROOT, capture_output=True, text=True)
    left = contents(features)
    finished = {name: content for name, content in left.items() if name.endswith(".h5")}
    assert 2 <= len(finished) < SLIDES, result.stderr
    if number == signal.SIGKILL:
        assert result.returncode == -number
        for partial in features.rglob(".*.partial"):
            partial.unlink()  # what was being written stays, under a name that is never read
    else:
        assert result.returncode == (143 if number == signal.SIGTERM else -number)
        assert left == finished, "half-written files"
        assert "Traceback" not in result.stderr
    before = {name: (features / name).stat().st_ino for name in finished}
    run_well("run", EXTRACTING, **settings)
    assert contents(features) == contents(extracted)
    assert {name: (features / name).stat().st_ino for name in finished} == before, "finished files were written again"


def test_parts_fill_one_folder_and_list_their_own_bad_slides(extracted: Path, slides: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    (folder / "slides").mkdir(parents=True)
    for name in ("cohort.csv", *(f"slides/{i}.tif" for i in range(SLIDES))):
        (folder / name).write_bytes((slides / name).read_bytes())
    garble(folder / "slides/4.tif", 9)
    settings: dict[str, Any] = {"dataset_dir": folder, "on_bad_slide": "skip", **quick(tmp_path)}
    whole = contents(extracted)
    run_well("extracting", EXTRACTING, **settings, part="3/3")
    assert contents(folder / "features") == {name: whole[name] for name in ("slides/2.h5", "slides/5.h5")}
    run_well("extracting", EXTRACTING, **settings, part="2/3")
    run_well("extracting", EXTRACTING, **settings, part="1/3")
    skipped = (folder / "features/part_2_of_3/skipped_slides.csv").read_text()
    assert "slides/4.tif" in skipped
    refused = run_bundle("extracting", EXTRACTING, **settings, part="4/3")
    assert (refused.returncode, "Traceback" in refused.stderr) == (1, False)
    assert "Error: part is '4/3'" in refused.stderr
    left = contents(folder / "features")
    assert set(left) == {"part_2_of_3/skipped_slides.csv", *whole} - {"slides/4.h5"}
    assert all(left[name] == whole[name] for name in left if name in whole)


def test_parts_of_an_inference_put_together_are_the_whole(trained: Path, dataset_dir: Path, tmp_path: Path) -> None:
    settings = {"dataset_dir": dataset_dir, "model": trained / "models" / "model.pt", "output_dir": tmp_path}
    for part in (None, "1/2", "2/2"):
        run_well("inference", INFERENCE, **settings, part=part)
    folder = tmp_path / "inference"
    for name in ("predictions.csv", "patient_predictions.csv"):
        whole, *parts = (
            list(csv.reader((folder / inner / name).open(encoding="utf-8")))
            for inner in ("", "part_1_of_2", "part_2_of_2")
        )
        assert all(len(part) > 1 for part in parts)
        assert parts[0][0] == parts[1][0] == whole[0]
        assert sorted(parts[0][1:] + parts[1][1:]) == sorted(whole[1:])


def test_one_slide_can_be_named_and_other_settings_need_another_folder(
    extracted: Path, slides: Path, tmp_path: Path
) -> None:
    slide = slides / "slides/0.tif"
    settings: dict[str, Any] = {"slide": slide, "features_dir": tmp_path / "one", **quick(tmp_path)}
    run_well("extracting", EXTRACTING, **settings, slide_mpp=0.25, extractor_weights=extracted / "extractor.pt")
    (name,) = contents(tmp_path / "one")
    assert name == str(slide.with_suffix(".h5")).lstrip("/")

    settings = {"dataset_dir": slides, **quick(tmp_path), "mpp": 0.5, "seed": 1}
    before = contents(extracted)
    result = run_bundle("extracting", EXTRACTING, **settings)
    assert result.returncode == 1
    message = result.stderr[result.stderr.index("\nError: ") :]
    for words in ("mpp was 0.25 and is now 0.5", "weights was ", "--overwrite true", "and 3 more"):
        assert words in message
    assert "Traceback" not in result.stderr
    assert contents(extracted) == before
