# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import csv
import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import openslide
import pytest
import yaml

from persam_monai.errors import UserError
from persam_monai.synthetic import cohort as module
from persam_monai.synthetic import make_cohort
from persam_monai.synthetic.pyramid import write_pyramid

SCRIPT = Path(__file__).parents[2] / "scripts" / "make_demo_cohort.py"
PATIENTS, SIZE = 9, 512


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_cohort(tmp_path_factory.mktemp("cohort") / "demo", PATIENTS, seed=3, size=SIZE, workers=1)


def test_the_same_seed_gives_the_same_bytes_for_any_number_of_workers(folder: Path, tmp_path: Path) -> None:
    again = make_cohort(tmp_path / "again", PATIENTS, seed=3, size=SIZE, workers=2)
    assert digests(again) == digests(folder)


def test_another_seed_gives_another_cohort_also_in_an_empty_folder(folder: Path, tmp_path: Path) -> None:
    other, one = digests(make_cohort(tmp_path, PATIENTS, seed=4, size=SIZE, workers=1)), digests(folder)
    same = {name for name in one if one[name] == other.get(name)}
    assert same == {"clinical.yaml"}


def test_every_slide_of_the_table_is_there_and_opens(folder: Path) -> None:
    table = rows(folder / "cohort.csv")
    assert sorted(f"slides/{path.name}" for path in (folder / "slides").iterdir()) == sorted(r["slide"] for r in table)
    for row in table:
        with openslide.OpenSlide(folder / row["slide"]) as slide:
            assert slide.dimensions == (SIZE, SIZE)
            assert float(slide.properties["openslide.mpp-x"]) == 0.25


def test_a_ninth_patient_has_two_slides_and_one_record(folder: Path) -> None:
    table = rows(folder / "cohort.csv")
    assert len({row["patient_id"] for row in table}) == PATIENTS
    assert len(table) == PATIENTS + 1
    first, second = ({**row, "slide": ""} for row in table if row["patient_id"] == "P009")
    assert first == second


def test_table_holds_the_schema_and_nothing_of_the_truth(folder: Path) -> None:
    schema = yaml.safe_load((folder / "clinical.yaml").read_text(encoding="utf-8"))
    variables = [name for group in schema["groups"].values() for name in group]
    table = rows(folder / "cohort.csv")
    assert list(table[0]) == ["patient_id", "slide", "label", *variables]
    assert {row["label"] for row in table} == set(schema["classes"]) == {"DLBCL", "FL", "Reactive"}


def test_truth_maps_show_the_kinds_that_the_truth_table_names(folder: Path) -> None:
    names = {"DLBCL": 2, "FL": 3, "Reactive": 4}
    labels = {row["slide"]: row["label"] for row in rows(folder / "cohort.csv")}
    for row in rows(folder / "truth" / "truth.csv"):
        painted = imagecodecs.png_decode((folder / "truth" / f"{Path(row['slide']).stem}.png").read_bytes())
        assert painted.shape == (SIZE // 16, SIZE // 16)
        kinds = {names[kind] for kind in row["kinds"].split("+") if kind}
        assert set(np.unique(painted)) == {0, 1, *kinds}
        assert float(row["area_glass"]) == pytest.approx(np.mean(painted == 0), abs=1e-4)
        assert row["label"] == labels[row["slide"]]
        if row["decided_by"] != "record":
            assert row["deciding_kind"] == row["label"]
            assert names[row["deciding_kind"]] in kinds
        assert len(kinds) in {"image": {1}, "ambiguous": {2}, "record": {0, 3}}[row["decided_by"]]


def test_readme_says_that_it_is_synthetic_and_how_to_make_it_again(folder: Path) -> None:
    text = (folder / "README.txt").read_text(encoding="ascii")
    assert text.startswith("SYNTHETIC DATA")
    assert f"--patients {PATIENTS} --seed 3 --size {SIZE}" in text


def test_files_of_the_user_are_not_touched(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(UserError, match=r"already holds files.*name a new folder"):
        make_cohort(tmp_path, PATIENTS, size=SIZE)
    assert digests(tmp_path).keys() == {"mine.txt"}
    with pytest.raises(UserError, match="is a file"):
        make_cohort(tmp_path / "mine.txt", PATIENTS, size=SIZE)


def test_an_interrupted_cohort_is_completed_by_the_same_call(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    painted: list[str] = []

    def painting(path: Path, image: np.ndarray, mpp: float) -> None:
        if len(painted) == 2:
            painted.append("interrupted")
            path.write_bytes(b"half a slide")
            raise KeyboardInterrupt
        painted.append(path.name)
        write_pyramid(path, image, mpp)

    monkeypatch.setattr(module, "write_pyramid", painting)
    settings: dict[str, Any] = {"patients": PATIENTS, "seed": 3, "size": SIZE, "workers": 1}
    with pytest.raises(KeyboardInterrupt):
        make_cohort(tmp_path / "new" / "demo", **settings)
    assert not (tmp_path / "new" / "demo").exists()
    make_cohort(tmp_path / "new" / "demo", **settings)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["demo"]
    assert len(painted) == len(set(painted)), "no slide is painted twice"
    assert digests(tmp_path / "new" / "demo") == digests(folder)


@pytest.mark.parametrize(
    ("argument", "value", "expected"),
    [
        ("patients", 5, "--patients is 5; expected 6 to 999"),
        ("seed", -1, "--seed is -1; expected at least 0"),
        ("size", 511, "--size is 511; expected 512 to 16384"),
        ("size", 16385, "--size is 16385"),
        ("workers", 0, "--workers is 0; expected at least 1"),
    ],
)
def test_arguments_out_of_range_are_refused_before_work_begins(
    tmp_path: Path, argument: str, value: int, expected: str
) -> None:
    with pytest.raises(UserError, match=expected):
        make_cohort(tmp_path / "demo", **{argument: value})  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_command_line_makes_a_cohort_then_refuses_to_overwrite_it(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), "--output", str(tmp_path / "demo")]
    command += ["--patients", "6", "--size", "512", "--workers", "1"]
    first = subprocess.run(command, capture_output=True, text=True, check=False)
    assert first.returncode == 0, first.stderr
    assert "Synthetic cohort in" in first.stdout
    second = subprocess.run(command, capture_output=True, text=True, check=False)
    assert second.returncode == 2
    assert second.stderr.startswith("Error: --output")
    assert "Traceback" not in second.stderr
