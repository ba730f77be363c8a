# SPDX-License-Identifier: Apache-2.0
"""The reading benchmark measures what it is said to; its figures depend on the machine and are no test."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import openslide
import pytest

from benchmark_reading import PARTS, Effort, measure
from endurance import measure_index, measure_memory
from readers import Read, Tiles, rate_in_processes
from slides import jpeg2000_slide, jpeg_slide, sparse_slide
from tests.bundle.running import ROOT
from turns import as_text

pytestmark = pytest.mark.slow

SCRIPT = ROOT / "scripts/benchmarks/benchmark_reading.py"
SIDE = 1024
LITTLE = Effort(repeats=1, seconds=0.01, bag_size=2)


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("slides")
    return {"jpeg": jpeg_slide(folder, SIDE), "jpeg2000": jpeg2000_slide(folder, SIDE)}


@pytest.fixture(scope="module")
def results(slides: dict[str, Path]) -> dict[str, Any]:
    return measure(slides["jpeg"].parent, list(PARTS), [slides["jpeg2000"]], LITTLE, SIDE)


def test_the_ratios_are_quotients_of_the_rates(results: dict[str, Any]) -> None:
    jpeg, jpeg2000, half = results["jpeg"], results["jpeg2000"], results["half_scale"]
    loader, monai = jpeg["loader_patches_per_s"], jpeg["monai_cucim_patches_per_s"]
    assert jpeg["ratio_to_monai"] == pytest.approx(loader / monai)
    assert jpeg["ratio_to_decoder"] == pytest.approx(loader / jpeg["decoder_2_threads_tiles_per_s"])
    others = [jpeg2000[f"{name}_2_processes_patches_per_s"] for name in ("openslide", "cucim")]
    assert jpeg2000["ratio_to_best_backend"] == pytest.approx(jpeg2000["loader_patches_per_s"] / max(others))
    tiles = half["loader_patches_per_s"] * half["tiles_per_patch"]
    assert half["ratio_to_decoder"] == pytest.approx(tiles / half["decoder_2_threads_tiles_per_s"])


def test_snapped_patches_need_the_fewest_tiles(results: dict[str, Any]) -> None:
    # 224 px in a tile of 256 px, and 448 px in two by two of them
    assert [results[part]["tiles_per_patch"] for part in PARTS] == [1, 1, 4]


def test_every_backend_has_a_rate(results: dict[str, Any]) -> None:
    for part in ("jpeg", "jpeg2000"):
        for backend in ("tiles", "cucim", "openslide"):
            assert results[part][f"loader_{backend}_patches_per_s"] > 0


def test_a_slide_of_the_user_is_measured_as_its_format_allows(results: dict[str, Any]) -> None:
    (measured,) = results["slides"]
    assert measured["slide"]["file"] == "jpeg2000_1024.svs"
    assert "ratio_to_best_backend" in measured
    assert "ratio_to_best_backend" in as_text(results)


def test_without_time_every_part_names_what_it_left_out(slides: dict[str, Path]) -> None:
    command = [sys.executable, str(SCRIPT), "--json", "--slide-side", str(SIDE), "--minutes", "0", "--only", *PARTS]
    command += ["--folder", str(slides["jpeg"].parent)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    for part in PARTS:
        assert "loader_patches_per_s" in printed[part]["left_out_for_time"]
        assert printed[part]["turns"] == 0


def test_a_slide_that_is_missing_is_reported() -> None:
    command = [sys.executable, str(SCRIPT), "--only", "slides", "--slide", "nowhere.svs"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 1
    assert done.stderr.startswith("Error: ")
    assert "nowhere.svs" in done.stderr


def test_slides_are_kept(slides: dict[str, Path]) -> None:
    before = slides["jpeg"].stat().st_mtime_ns
    assert jpeg_slide(slides["jpeg"].parent, SIDE).stat().st_mtime_ns == before


@pytest.mark.parametrize("codec", ["jpeg", "jpeg2000"])
def test_openslide_and_the_decoder_see_the_same_tile(slides: dict[str, Path], codec: str) -> None:
    tiles = Tiles.of(slides[codec], 224)
    assert tiles is not None
    assert tiles.codec == codec
    (index,) = tiles.touched(np.array([[256 + 32, 512]]))
    with openslide.OpenSlide(str(slides[codec])) as slide:
        region = np.asarray(slide.read_region((256, 512), 0, (256, 256)).convert("RGB"))
    assert np.array_equal(tiles.decode(tiles.read([index])[0]), region)


def test_touched_tiles_are_counted_for_every_patch(slides: dict[str, Path]) -> None:
    tiles = Tiles.of(slides["jpeg"], 224)
    assert tiles is not None
    assert tiles.touched(np.array([[0, 0], [33, 0], [100, 250]])) == [0, 0, 1, 0, 1, 4, 5]


def test_a_sparse_slide_is_a_disc_of_tissue_on_every_level(tmp_path: Path) -> None:
    path = sparse_slide(tmp_path, 8192, levels=2)
    assert path.stat().st_size < 8192**2 / 100
    with openslide.OpenSlide(str(path)) as slide:
        assert slide.level_dimensions == ((8192, 8192), (2048, 2048))
        assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(0.25)
        for level, side in enumerate((8192, 2048)):
            for corner, tissue in (((0, 0), False), ((4096 - 64, 4096 - 64), True)):
                region = np.asarray(slide.read_region(corner, level, (64, 64)).convert("RGB"))
                assert (region.mean() < 200) == tissue, (level, side, corner)


def test_memory_and_files_are_followed_over_several_epochs(slides: dict[str, Path]) -> None:
    measured = measure_memory(slides["jpeg"], slides["jpeg"].parent, bags=300, bag_size=8)
    assert measured["bags"] == 300
    assert measured["settled_mib"] > 100
    assert 3 < measured["most_open_files"] < 1000


def test_a_huge_slide_is_looked_into_as_time_allows(tmp_path: Path) -> None:
    measured = measure_index(tmp_path, side=4096, deadline=time.monotonic())
    assert measured["levels_4"]["cells"] > 0
    assert measured["levels_4"]["peak_mib"] > 100
    assert measured["left_out_for_time"] == ["levels_1"]


def test_processes_share_the_work_and_their_start_is_not_timed() -> None:
    def open_slowly() -> Read:
        time.sleep(0.5)
        return lambda locations: time.sleep(0.02 * len(locations))

    rate = rate_in_processes(open_slowly, np.zeros((20, 2), int), processes=2)
    assert 60 < rate <= 100  # two at 50 a second


def test_a_process_that_ends_early_is_an_error(capfd: pytest.CaptureFixture[str]) -> None:
    def broken() -> Read:
        raise OSError("no such slide")

    with pytest.raises(RuntimeError, match="ended early"):
        rate_in_processes(broken, np.zeros((2, 2), int), processes=1)
    time.sleep(0.5)  # the process writes its traceback
    assert "no such slide" in capfd.readouterr().err
