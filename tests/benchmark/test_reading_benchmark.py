# SPDX-License-Identifier: Apache-2.0
"""The reading benchmark measures what it says; what it finds depends on the machine and is no test."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import openslide
import pytest

from persam_monai.benchmark.reading import Effort, measure, table
from persam_monai.benchmark.reading.decoder import find_tiles
from persam_monai.benchmark.reading.half import departure, simplejpeg_half
from persam_monai.benchmark.reading.processes import Read, rate_in_processes
from persam_monai.benchmark.reading.slides import jpeg2000_slide, jpeg_slide
from persam_monai.benchmark.turns import in_turns
from tests.bundle.running import ROOT

SCRIPT = ROOT / "scripts/benchmark_reading.py"
SIDE = 1024
Slides = dict[str, Path]


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Slides:
    folder = tmp_path_factory.mktemp("slides")
    return {"jpeg": jpeg_slide(folder, SIDE), "jpeg2000": jpeg2000_slide(folder, SIDE)}


@pytest.fixture(scope="module")
def found(slides: Slides) -> dict[str, Any]:
    """What the script prints."""
    command = [sys.executable, str(SCRIPT), "--json", "--slide-side", str(SIDE), "--patches", "16", "--repeats", "1"]
    command += ["--folder", str(slides["jpeg"].parent)]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 0, result.stderr
    printed: dict[str, Any] = json.loads(result.stdout)
    return printed


def test_the_ratios_are_quotients_of_the_rates(found: dict[str, Any]) -> None:
    jpeg, jpeg2000, half = found["jpeg"], found["jpeg2000"], found["half_scale"]
    ours, monai = jpeg["loader_patches_per_s"], jpeg["monai_cucim_patches_per_s"]
    assert jpeg["ratio_to_monai"] == pytest.approx(ours / monai)
    assert jpeg["ratio_to_decoder"] == pytest.approx(ours / jpeg["decoder_2_threads_tiles_per_s"])
    others = [jpeg2000[f"{name}_2_processes_patches_per_s"] for name in ("openslide", "cucim")]
    assert jpeg2000["ratio_to_best_backend"] == pytest.approx(jpeg2000["loader_patches_per_s"] / max(others))
    tiles = half["loader_patches_per_s"] * half["tiles_per_patch"]
    assert half["ratio_to_decoder"] == pytest.approx(tiles / half["decoder_2_threads_tiles_per_s"])


def test_snapped_patches_need_the_fewest_tiles(found: dict[str, Any]) -> None:
    # 224 px in a tile of 256 px, and 448 px in two by two of them
    assert [found[part]["tiles_per_patch"] for part in ("jpeg", "jpeg2000", "half_scale")] == [1, 1, 4]


def test_every_backend_has_a_rate(found: dict[str, Any]) -> None:
    for part in ("jpeg", "jpeg2000"):
        for backend in ("tiles", "cucim", "openslide"):
            assert found[part][f"loader_{backend}_patches_per_s"] > 0


def test_a_slide_that_is_given_is_measured_as_its_format_allows(slides: Slides) -> None:
    effort = Effort(repeats=1, patches=16)
    (measured,) = measure(slides["jpeg"].parent, parts=(), slides=[slides["jpeg2000"]], effort=effort)["slides"]
    assert list(measured) == ["jpeg2000"]
    assert measured["jpeg2000"]["slide"]["file"] == "jpeg2000_1024.svs"
    text = table({"slides": [measured]})
    assert "ratio_to_best_backend" in text


def test_a_slide_that_is_missing_is_reported_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), "--slide", "nowhere.svs"])
    with pytest.raises(SystemExit, match=r"^Error: Slide nowhere\.svs does not exist"):
        runpy.run_path(str(SCRIPT), run_name="__main__")


def test_slides_are_kept(slides: Slides) -> None:
    before = slides["jpeg"].stat().st_mtime_ns
    assert jpeg_slide(slides["jpeg"].parent, SIDE).stat().st_mtime_ns == before


def test_openslide_and_the_decoder_see_the_same_tile(slides: Slides) -> None:
    for codec, decode in (("jpeg", imagecodecs.jpeg8_decode), ("jpeg2000", imagecodecs.jpeg2k_decode)):
        tiles = find_tiles(slides[codec])
        assert tiles is not None
        assert tiles.codec == codec
        (index,) = tiles.touched(np.array([[256 + 32, 512]]), 224)
        with openslide.OpenSlide(str(slides[codec])) as slide:
            region = np.asarray(slide.read_region((256, 512), 0, (256, 256)).convert("RGB"))
        assert np.array_equal(decode(tiles.read([index])[0]), region)


def test_touched_tiles_are_counted_for_every_patch(slides: Slides) -> None:
    tiles = find_tiles(slides["jpeg"])
    assert tiles is not None
    assert tiles.touched(np.array([[0, 0], [33, 0], [100, 250]]), 224) == [0, 0, 1, 0, 1, 4, 5]


def test_a_flat_picture_is_the_same_at_half_scale() -> None:
    flat = bytes(imagecodecs.jpeg8_encode(np.full((64, 64, 3), 128, np.uint8)))
    assert departure(simplejpeg_half, [flat])["max"] == 0


def test_the_first_turn_does_not_count() -> None:
    values = iter([100.0, 1.0, 3.0, 2.0])
    assert in_turns({"one": lambda: next(values)}, repeats=3) == {"one": [1, 3, 2]}


def test_after_the_deadline_nothing_begins() -> None:
    def slow() -> float:
        time.sleep(0.2)
        return 1.0

    contenders = {"first": slow, "second": slow, "third": slow}
    assert in_turns(contenders, 5, time.perf_counter() + 0.3) == {"first": [1], "second": [1], "third": []}
    found = Effort(deadline=time.perf_counter() + 0.3).rates({name: lambda n: slow() for name in contenders})
    assert found == {"first": 1, "second": 1, "turns": 1, "left_out_for_time": ["third"]}


def test_without_time_every_part_says_what_it_left_out(slides: Slides) -> None:
    found = measure(slides["jpeg"].parent, effort=Effort(1, patches=16), side=SIDE, minutes=0)
    for part in ("jpeg", "jpeg2000", "half_scale"):
        assert "loader_patches_per_s" in found[part]["left_out_for_time"]
        assert found[part]["turns"] == 0
    assert found["index"]["left_out_for_time"] == ["levels_1"]
    assert 0 < found["memory"]["bags"] <= 120
    assert "cucim_2_processes_patches_per_s, decoder_2_threads" in table(found)


def test_processes_share_the_work_and_their_start_is_not_timed() -> None:
    def open_slowly() -> Read:
        time.sleep(0.5)
        return lambda places: time.sleep(0.02 * len(places))

    rate = rate_in_processes(open_slowly, np.zeros((20, 2), int), processes=2)
    assert 60 < rate <= 100  # two at 50 a second


def test_a_process_that_ends_early_is_an_error(capfd: pytest.CaptureFixture[str]) -> None:
    def broken() -> Read:
        raise OSError("no such slide")

    with pytest.raises(RuntimeError, match="ended early"):
        rate_in_processes(broken, np.zeros((2, 2), int), processes=1)
    assert "no such slide" in capfd.readouterr().err
