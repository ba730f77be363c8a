# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import csv
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from persam_monai.checking import find_slides
from persam_monai.cohort import Cohort, SlideEntry
from persam_monai.data import IndexCache, PatchSettings, index_slides
from persam_monai.errors import UserError
from persam_monai.synthetic import write_pyramid
from tests.checking.conftest import HALF_SIDE, HALF_TISSUE
from tests.slides.dicom import write_dicom

ROOT = Path(__file__).parents[2]
LINE = re.compile(
    r"  (?P<slide>\S+) +((?P<width>\d+) x (?P<height>\d+) +(?P<mpp_x>\S+) +(?P<backend>\w+) +"
    r"(?P<tissue_percent>[\d.]+) % +(?P<patches>\d+))?( +(?P<problem>.+))?"
)

Check = Callable[..., tuple[int, list[str]]]


def parsed(line: str) -> dict[str, Any]:
    match = LINE.fullmatch(line)
    assert match, line
    return {name: value or "" for name, value in match.groupdict().items()}


def test_the_script_says_what_is_in_a_folder_of_slides_and_keeps_it_for_the_training(
    cohort: Cohort, tmp_path: Path
) -> None:
    folder, index_dir = cohort.entries[0].path.parent, tmp_path / "index"
    script = [sys.executable, str(ROOT / "scripts/check_slides.py")]
    done = subprocess.run(
        [*script, str(folder), "--num_workers", "2", "--index_dir", str(index_dir)],
        capture_output=True,
        text=True,
        encoding="utf-8",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    first, _, *lines, last = done.stdout.splitlines()
    assert first == f"Found 3 slides in {folder}."
    assert [parsed(line)["slide"] for line in lines] == ["a.tif", "b.tif", "c.tif"]
    for line, entry in zip(lines, cohort.entries, strict=True):
        height, width, _ = tifffile.TiffFile(entry.path).pages[0].shape
        found = parsed(line)
        assert (found["width"], found["height"], found["mpp_x"]) == (str(width), str(height), "0.25")
        assert (found["tissue_percent"], found["backend"]) == ("100.0", "tiles")
        assert int(found["patches"]) == (width // 224) * (height // 224)
    assert last == "3 slides: 3 usable with 36 patches in all, none with problems."
    assert "3/3" in done.stderr

    def never(entry: SlideEntry, patches: PatchSettings) -> Any:
        raise AssertionError("looked into again")

    index_slides(cohort.entries, PatchSettings(), cache=IndexCache(index_dir), index=never)


@pytest.mark.parametrize("sampling", ["snapped", "uniform", "grid"])
def test_tissue_and_patches_are_those_that_were_painted(check: Check, half: Path, sampling: str) -> None:
    status, lines = check(half, "--mpp", 1, "--sampling", sampling)
    found = parsed(lines[1])
    assert status == 0
    assert float(found["tissue_percent"]) == pytest.approx(100 * HALF_TISSUE / HALF_SIDE, abs=2)
    starts = range(0, HALF_SIDE - 224 + 1, 224)
    shares = [np.mean(np.arange(left, min(left + 224, HALF_SIDE)) < HALF_TISSUE) for left in starts for _ in starts]
    assert int(found["patches"]) == sum(share >= 0.5 for share in shares)


def test_every_slide_with_a_problem_is_named_and_the_others_are_still_looked_at(
    check: Check, tmp_path: Path, picture: Callable[..., np.ndarray]
) -> None:
    write_pyramid(tmp_path / "good.tif", picture(512, 512), mpp=0.25)
    write_pyramid(tmp_path / "unknown.tif", picture(512, 512), mpp=None)
    write_pyramid(tmp_path / "told.tif", picture(512, 512), mpp=None)
    write_pyramid(tmp_path / "glass.tif", np.full((512, 768, 3), 243, np.uint8), mpp=0.25)
    write_pyramid(tmp_path / "coarse.tif", picture(512, 512), mpp=1.0)
    (tmp_path / "text.svs").write_text("not a slide")
    whole = (tmp_path / "good.tif").read_bytes()
    (tmp_path / "cut.tif").write_bytes(whole[: len(whole) // 3])
    slides = ["good.tif", "unknown.tif", "glass.tif", "coarse.tif", "text.svs", "cut.tif", "gone.svs", "good.tif"]
    rows = "".join(f"SECRET{i},{slide},,forty,\n" for i, slide in enumerate(slides))
    (tmp_path / "cohort.csv").write_text(f"patient_id,slide,label,age,mpp\n{rows}SECRET9,told.tif,,,0.25\n")
    status, lines = check(tmp_path, "--csv", tmp_path / "out" / "slides.csv")
    assert status == 1
    assert "SECRET" not in "\n".join(lines)
    first, *middle, last = lines
    assert first == f"Found 8 slides in {tmp_path / 'cohort.csv'}."
    assert last == "8 slides: 2 usable with 8 patches in all, 6 with problems."
    found = {values["slide"]: values for values in map(parsed, middle)}
    assert list(found) == [*slides[:-1], "told.tif"]
    assert {name for name, values in found.items() if not values["problem"]} == {"good.tif", "told.tif"}
    expected = {
        "unknown.tif": "does not say how many µm",
        "glass.tif": "no tissue found",
        "coarse.tif": "coarser than the mpp 0.25",
        "text.svs": "is not a whole-slide image",
        "cut.tif": "cut off|complete",
        "gone.svs": "No such file",
    }
    for name, words in expected.items():
        assert re.search(words, found[name]["problem"]), found[name]
    assert (found["glass.tif"]["width"], found["glass.tif"]["height"]) == ("768", "512")
    assert (found["glass.tif"]["tissue_percent"], found["glass.tif"]["patches"]) == ("0.0", "0")
    assert found["coarse.tif"]["mpp_x"] == "1"
    with (tmp_path / "out" / "slides.csv").open(newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    assert [{name: row[name] for name in found[row["slide"]]} for row in table] == list(found.values())
    assert not [path for path in (tmp_path / "out").iterdir() if path.name != "slides.csv"]


@pytest.mark.parametrize("backend", ["tiles", "openslide", "cucim"])
def test_damaged_tiles_are_found_when_all_is_read(check: Check, garbled: Callable[..., Path], backend: str) -> None:
    path = garbled((2, 1), (3, 3))
    assert check(path, "--backend", backend)[0] == 0
    status, lines = check(path, "--backend", backend, "--read")
    found = parsed(lines[1])
    assert status == 1
    assert (found["width"], found["patches"], found["backend"]) == ("1024", "16", backend)
    assert str(path) in found["problem"]
    if backend == "tiles":
        assert "tile 2 from the left, 1 from the top" in found["problem"]
    assert check(garbled(), "--read")[0] == 0


def test_a_slide_given_by_hand_can_be_told_its_resolution(
    check: Check, tmp_path: Path, picture: Callable[..., np.ndarray]
) -> None:
    path = tmp_path / "unknown.tif"
    write_pyramid(path, picture(512, 512), mpp=None)
    assert check(path)[0] == 1
    status, lines = check(path, "--slide_mpp", 0.26)
    assert (status, parsed(lines[1])["mpp_x"]) == (0, "0.26")


def test_pictures_are_drawn_even_of_slides_that_cannot_be_used(
    check: Check, tmp_path: Path, cohort: Cohort, half: Path
) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        shutil.copy(cohort.entries[2].path, tmp_path / folder / "same.tif")
    write_pyramid(tmp_path / "glass.tif", np.full((512, 512, 3), 243, np.uint8), mpp=0.25)
    slides = [tmp_path / "one/same.tif", tmp_path / "glass.tif", half, tmp_path / "two"]
    status, lines = check(*slides, "--pictures", tmp_path / "pictures", "--num_workers", 2)
    assert status == 1
    assert [parsed(line)["slide"] for line in lines[1:-1]] == [*map(str, slides[:-1]), "same.tif"]
    drawn = {path.name for path in (tmp_path / "pictures").iterdir()}
    assert drawn == {"same.png", "same-2.png", "glass.png", "half.png"}


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--sampling", "sorted"), "sampling is 'sorted'; expected one of snapped, uniform, grid"),
        (("--mpp", "fine", "--min_tissue", "2"), r"(?s)mpp is 'fine'.*min_tissue is 2"),
        (("--table", "other.csv"), "other.csv: no such file"),
        (("--pictures", "/dev/null/x"), "the folder cannot be made"),
    ],
)
def test_what_is_not_possible_ends_with_a_message_alone(
    check: Check, cohort: Cohort, words: tuple[str, ...], complaint: str
) -> None:
    status, lines = check(cohort.entries[0].path.parent, *words)
    assert status == 2
    assert lines[0].startswith("Error: ")
    assert re.search(complaint, "\n".join(lines))
    assert "Traceback" not in "\n".join(lines)


def test_a_folder_without_a_table_gives_its_own_slides_alone(tmp_path: Path) -> None:
    for name in ("b.SVS", "a.ndpi", "notes.txt", "._a.ndpi", "deeper/c.svs"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "folder.tif").mkdir()
    entries, found = find_slides([tmp_path], slide_mpp=0.5)
    assert [(entry.slide, entry.mpp) for entry in entries] == [("a.ndpi", 0.5), ("b.SVS", 0.5)]
    assert found == f"2 slides in {tmp_path}."


def test_the_files_of_a_dicom_slide_are_one_slide(tmp_path: Path) -> None:
    for name, series in (("0.dcm", 1), ("1.dcm", 2), ("2.dcm", 1)):
        write_dicom(tmp_path / name, np.zeros((256, 256, 3), np.uint8), 0.25, series)
    assert [entry.slide for entry in find_slides([tmp_path])[0]] == ["0.dcm", "1.dcm"]
    (again,) = find_slides([tmp_path / "2.dcm", tmp_path / "0.dcm"])[0]
    assert again.path == tmp_path / "0.dcm"


def test_paths_in_a_table_are_relative_to_it_and_nothing_else_of_it_matters(tmp_path: Path) -> None:
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables/all.csv").write_text("age,slide,mpp\nold,../a.svs,\n,/data/b.svs,0.5\n")
    entries, _ = find_slides([tmp_path], table="tables/all.csv", slide_mpp=0.1)
    expected = [("../a.svs", tmp_path / "a.svs", None), ("/data/b.svs", Path("/data/b.svs"), 0.5)]
    assert [(entry.slide, entry.path, entry.mpp) for entry in entries] == expected


def test_folders_without_slides_and_places_that_are_not_there_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"neither cohort\.csv nor slides.*\.svs"):
        find_slides([tmp_path])
    with pytest.raises(UserError, match="no such file or folder"):
        find_slides([tmp_path / "dataset"])
