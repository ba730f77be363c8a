# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import tifffile

from persam_monai.errors import UserError
from persam_monai.slides import Slide
from persam_monai.slides.header import HEADER_JSON, read_header
from tests.slides.writing import noise, overwrite_tags, write_slide


def resolved(path: Path, per_unit: tuple[float, float], unit: str) -> Path:
    """A slide with resolution tags ``per_unit`` (x, y)."""
    tifffile.imwrite(
        path,
        noise(300, 300),
        tile=(256, 256),
        photometric="rgb",
        resolution=per_unit,
        resolutionunit=unit,
        bigtiff=True,
    )
    return path


@pytest.mark.parametrize(
    ("per_unit", "unit", "mpp"),
    [
        ((40_000, 40_000), "CENTIMETER", (0.25, 0.25)),
        ((101_600, 101_600), "INCH", (0.25, 0.25)),  # 25,400 µm in an inch
        ((40_000, 20_000), "CENTIMETER", (0.25, 0.5)),
        ((50_800, 101_600), "INCH", (0.5, 0.25)),
        ((10_000 / 0.2456, 10_000 / 0.2456), "CENTIMETER", (0.2456, 0.2456)),
        ((201, 201), "CENTIMETER", (49.75, 49.75)),
    ],
)
def test_resolution_tags_are_read_in_their_unit(
    tmp_path: Path, per_unit: tuple[float, float], unit: str, mpp: tuple[float, float]
) -> None:
    assert read_header(resolved(tmp_path / "slide.tif", per_unit, unit)).mpp == pytest.approx(mpp, rel=1e-3)


@pytest.mark.parametrize("dots", [72, 96, 300])
def test_a_resolution_of_screens_and_printers_is_refused_with_the_cure(tmp_path: Path, dots: int) -> None:
    path = resolved(tmp_path / "slide.tif", (dots, dots), "INCH")
    with pytest.raises(UserError, match=rf"{25400 / dots:.4g} µm, which no slide scanner makes.*column mpp") as caught:
        read_header(path)
    assert str(path) in str(caught.value)
    assert read_header(path, 0.5).mpp == (0.5, 0.5)  # the cure


def test_an_absurd_resolution_along_one_axis_is_refused_too(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no slide scanner makes"):
        read_header(resolved(tmp_path / "slide.tif", (40_000, 28), "CENTIMETER"))


def test_a_resolution_of_zero_is_no_resolution(tmp_path: Path) -> None:
    path = write_slide(tmp_path / "slide.tif", [noise(300, 300)])
    overwrite_tags(path, "XResolution", (0, 1))
    with pytest.raises(UserError, match=r"does not say how many µm.*column mpp"):
        read_header(path)


def of_ome(path: Path, physical: dict[str, object], dots: int = 72) -> Path:
    """An OME-TIFF with resolution tags of ``dots`` per inch and PhysicalSize… in its XML."""
    tifffile.imwrite(
        path,
        noise(300, 300),
        tile=(256, 256),
        photometric="rgb",
        ome=True,
        resolution=(dots, dots),
        resolutionunit="INCH",
        metadata={"axes": "YXS", **{f"PhysicalSize{name}": value for name, value in physical.items()}},
    )
    return path


@pytest.mark.parametrize(
    ("physical", "mpp"),
    [
        ({"X": 0.25, "Y": 0.26}, (0.25, 0.26)),  # µm where nothing is said
        ({"X": 0.25, "XUnit": "µm", "Y": 0.25, "YUnit": "µm"}, (0.25, 0.25)),
        ({"X": 250, "XUnit": "nm", "Y": 0.00026, "YUnit": "mm"}, (0.25, 0.26)),
        ({"X": 2.5e-5, "XUnit": "cm", "Y": 2500, "YUnit": "Å"}, (0.25, 0.25)),
    ],
)
def test_an_ome_tiff_says_its_resolution_in_its_xml(
    tmp_path: Path, physical: dict[str, object], mpp: tuple[float, float]
) -> None:
    path = of_ome(tmp_path / "slide.ome.tif", physical)
    assert read_header(path).mpp == pytest.approx(mpp)
    assert read_header(path, 0.4).mpp == (0.4, 0.4)  # the table's wins


@pytest.mark.parametrize("physical", [{}, {"X": 0.25}, {"X": 1, "XUnit": "pixel", "Y": 1, "YUnit": "pixel"}])
def test_an_ome_tiff_that_does_not_say_is_taken_by_its_tags(tmp_path: Path, physical: dict[str, object]) -> None:
    assert read_header(of_ome(tmp_path / "a.ome.tif", physical, 101_600)).mpp == pytest.approx((0.25, 0.25))
    with pytest.raises(UserError, match=r"b\.ome\.tif.*column mpp"):
        read_header(of_ome(tmp_path / "b.ome.tif", physical))


def test_the_cohort_tables_resolution_wins(tmp_path: Path) -> None:
    path = write_slide(tmp_path / "slide.tif", [noise(1200, 1200), noise(300, 300)], mpp=(0.25, 0.25))
    header = read_header(path, 0.4)
    assert header.mpp == (0.4, 0.4)
    assert [level.mpp for level in header.levels] == [(0.4, 0.4), (1.6, 1.6)]
    with Slide(path, mpp=0.4) as slide:
        assert slide.mpp == (0.4, 0.4)
        assert slide.plan(100, 0.8).region == (200, 200)
    with Slide(path, header=header) as slide:
        assert slide.mpp == (0.4, 0.4)


def test_levels_say_how_they_relate_to_the_first(tmp_path: Path) -> None:
    path = write_slide(tmp_path / "slide.tif", [noise(999, 1203), noise(250, 301, 1)], tile=(256, 240))
    first, second = read_header(path).levels
    assert (first.dimensions, first.downsample, first.tile) == ((1203, 999), (1.0, 1.0), (256, 240))
    assert (second.dimensions, second.tile) == ((301, 250), (256, 240))
    for axis, exact in enumerate((1203 / 301, 999 / 250)):
        assert second.downsample[axis] == pytest.approx(exact, rel=1e-3)
        assert second.mpp[axis] == pytest.approx(0.25 * exact, rel=1e-3)


@pytest.mark.parametrize("form", ["jpeg 420 shared tables", "lzw predictor", "jpeg2000"])
def test_a_header_survives_json_and_pickle(tmp_path: Path, form: str) -> None:
    path = write_slide(tmp_path / "patient 17.tif", [noise(600, 500), noise(150, 125)], form, byteorder="<")
    header = read_header(path)
    again = HEADER_JSON.validate_json(HEADER_JSON.dump_json(header))
    assert again == header == pickle.loads(pickle.dumps(header))
    with Slide(path) as one, Slide(path, header=again) as other:
        places = np.array([[0, 0], [300, 200]])
        np.testing.assert_array_equal(other.read_patches(places, 150, 0.25), one.read_patches(places, 150, 0.25))
