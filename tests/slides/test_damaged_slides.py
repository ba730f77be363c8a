# SPDX-License-Identifier: Apache-2.0
"""A damaged slide is an error that names it: no wrong pixels, no crash, no waiting, no gigabytes of memory.

Each reader tries all the damaged files in a process of its own, so that a crash of a C library would be seen.

What cannot be seen: zeros from some byte of a JPEG 2000 stream to its end (they are empty packets: a blurred picture),
and noise in a deflate stream by OpenSlide, which reads such tiles only if it is asked to. CuCIM is not asked about
damage inside a tile: it gives neither an error nor reliably black pixels there but what its memory held before, and a
deflate tile ends the process. That is why ``auto`` never chooses it.
"""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile

from persam_monai.errors import UserError
from persam_monai.slides import Slide
from persam_monai.slides.header import read_header
from tests.bundle.running import ROOT
from tests.slides.writing import decoded_levels, overwrite_bytes, overwrite_list, smooth, tile_span, write_slide

SIDE = 600  # three by three tiles; the one in the middle is damaged
MIDDLE = 4
GIGABYTE = 2**30

READ = """
import json, resource, sys, time
import numpy as np
from persam_monai.errors import UserError
from persam_monai.slides import Slide
backend, *paths = sys.argv[1:]
limit = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in paths:
    begin = time.monotonic()
    try:
        with Slide(path, backend=backend) as slide:
            patches = slide.read_patches(np.array([[0, 0], [270, 270], [350, 20]]), 200, 0.25)
            slide.thumbnail(2.0)
            found = "pixels" if slide.dimensions == (600, 600) and len(slide.levels) == 2 else "other levels"
    except UserError as error:
        found = str(error)
    except BaseException as error:
        found = "!" + repr(error)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - limit
    print("\\n" + json.dumps([path, found, time.monotonic() - begin, grown / 1024]), flush=True)
"""

Damage = Callable[[Path], object]


def cut(share: float) -> Damage:
    def damage(path: Path) -> None:
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * share)])

    return damage


def garble(begin: float, end: float, value: int | None = None) -> Damage:
    """Overwrite a part of the middle tile, at random or by one value."""

    def damage(path: Path) -> None:
        place, size = tile_span(path, MIDDLE)
        first, last = int(size * begin), max(int(size * end), int(size * begin) + 8)
        noise = np.random.default_rng(0).integers(0, 256, last - first, np.uint8).tobytes()
        overwrite_bytes(path, place + first, noise if value is None else bytes([value]) * (last - first))

    return damage


def number(name: str, value: int) -> Damage:
    return lambda path: overwrite_list(path, name, MIDDLE, value)


def short(path: Path) -> None:
    overwrite_list(path, "TileByteCounts", MIDDLE, tile_span(path, MIDDLE)[1] // 2)


def chain_cut(path: Path) -> None:
    """The first directory points to a second one beyond the end of the file."""
    content = path.read_bytes()
    (first,) = struct.unpack_from("<Q", content, 8)
    (entries,) = struct.unpack_from("<Q", content, first)
    overwrite_bytes(path, first + 8 + 20 * entries, struct.pack("<Q", len(content) + 1000))


DAMAGES: dict[str, Damage] = {
    **{f"cut off after {share}": cut(share) for share in (0.001, 0.01, 0.1, 0.5, 0.9, 0.99, 0.9999)},
    "empty": lambda path: path.write_bytes(b""),
    "a text": lambda path: path.write_text("patient,slide\n1,a.svs\n"),
    "a directory that points nowhere": chain_cut,
    "a tile beyond the file": number("TileOffsets", 2**40),
    "a tile of two gigabytes": number("TileByteCounts", 2 * GIGABYTE),
    "a tile of four gigabytes": number("TileByteCounts", 4 * GIGABYTE - 1),
    "a tile at the end of all numbers": number("TileOffsets", 2**64 - 1),
    "a tile of half its bytes": short,
    "a tile of one byte": number("TileByteCounts", 1),
    "zeros": garble(0, 1, 0),
    "ones": garble(0, 1, 255),
    "noise": garble(0, 1),
    "noise in the head": garble(0, 0.01),
    "noise in the middle": garble(0.4, 0.6),
    "zeros at the end": garble(0.5, 1, 0),
}
FORMS = ("jpeg 420", "jpeg 420 shared tables", "lzw predictor", "deflate", "jpeg2000")


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Path]:
    """Every form of slide with every damage, and the sound ones."""
    folder = tmp_path_factory.mktemp("damaged")
    paths = {}
    for form in FORMS:
        sound = write_slide(folder / f"{form}.sound.tif", [smooth(SIDE, SIDE), smooth(200, 200, 1)], form)
        assert decoded_levels(sound)[0].shape == (SIDE, SIDE, 3)
        paths[form, "sound"] = sound
        for name, damage in DAMAGES.items():
            path = paths[form, name] = folder / f"{form}.{name}.svs"
            path.write_bytes(sound.read_bytes())
            damage(path)
    return paths


def read_all(reader: str, paths: list[Path]) -> dict[Path, tuple[str, float, float]]:
    """What a process of its own finds in each file: message, seconds and the megabytes it has grown by."""
    command = [sys.executable, "-c", READ, reader, *map(str, paths)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, errors="replace", timeout=120)
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('["/')]
    found = {Path(path): (message, seconds, grown) for path, message, seconds, grown in lines}
    assert done.returncode == 0, f"died after {list(found)[-1:]}: {done.stderr[-2000:]}"
    return found


UNSEEN = {
    ("tiles", "jpeg2000", "zeros at the end"),
    ("auto", "jpeg2000", "zeros at the end"),
    ("openslide", "jpeg2000", "zeros at the end"),
    ("openslide", "deflate", "zeros at the end"),
    ("openslide", "deflate", "noise in the middle"),
}
OF_THE_FILE = ("empty", "a text", "a directory that points nowhere", *(name for name in DAMAGES if "cut off" in name))


@pytest.mark.parametrize("reader", ["tiles", "openslide", "auto", "cucim"])
def test_damage_is_an_error_that_names_the_slide(damaged: dict[tuple[str, str], Path], reader: str) -> None:
    asked = {
        (form, name): path
        for (form, name), path in damaged.items()
        if (reader != "cucim" or name in ("sound", *OF_THE_FILE)) and (reader, form, name) not in UNSEEN
    }
    found = read_all(reader, list(asked.values()))
    assert list(found) == list(asked.values())
    wrong = {}
    for (form, name), path in asked.items():
        message, seconds, grown = found[path]
        readable = name == "sound" and (reader, form) != ("cucim", "deflate")  # which cuCIM is kept from
        good = message == "pixels" if readable else str(path) in message and not message.startswith("!")
        if not good or seconds > 5 or grown > 200:  # megabytes
            wrong[form, name] = found[path]
    assert wrong == {}


@pytest.mark.parametrize("reader", ["tiles", "auto"])
def test_garbled_tags_end_neither_the_process_nor_the_memory(tmp_path: Path, reader: str) -> None:
    """Whether the pixels can still be right depends on the tag; what is not allowed is anything but a clean error."""
    tags = {"TileWidth", "TileLength", "BitsPerSample", "SamplesPerPixel", "Compression", "PhotometricInterpretation"}
    tags |= {"PlanarConfiguration", "NewSubfileType", "XResolution", "TileOffsets", "TileByteCounts", "ResolutionUnit"}
    tags |= {"ImageWidth", "ImageLength"}
    sound = write_slide(tmp_path / "sound.tif", [smooth(SIDE, SIDE), smooth(200, 200, 1)])
    paths = []
    with tifffile.TiffFile(sound) as file:
        entries = {tag.name: tag.offset for tag in file.pages[0].tags if tag.name in tags}
    assert set(entries) == tags
    for name, entry in entries.items():
        for part, place, size in (("type", 2, 2), ("count", 4, 8), ("value", 12, 8)):  # of an entry of a BigTIFF
            for value in (0, 1, 0xFF, 0x7FFFFFFF, 0xFFFFFFFFFFFFFFFF):
                path = tmp_path / f"{name} {part} {value}.tif"
                path.write_bytes(sound.read_bytes())
                overwrite_bytes(path, entry + place, (value % 256**size).to_bytes(size, "little"))
                paths.append(path)
    for path, (message, seconds, grown) in read_all(reader, paths).items():
        assert message in ("pixels", "other levels") or (str(path) in message and not message.startswith("!")), message
        assert seconds < 5, path
        assert grown < 400, path


def test_the_message_says_what_to_do(damaged: dict[tuple[str, str], Path]) -> None:
    names = ["noise in the middle", "a tile beyond the file", "cut off after 0.5", "empty"]
    found = read_all("auto", [damaged["jpeg 420", name] for name in names])
    in_a_tile, beyond, cut_off, empty = (message for message, *_ in found.values())
    for message in (in_a_tile, beyond):
        assert "tile 1 from the left, 1 from the top (counted from 0) of level 0 is damaged" in message
        assert "Copy the slide anew" in message
    assert "it is cut off" in beyond
    assert "cut off" in cut_off or "complete" in cut_off
    assert "check that the file is complete" in empty


def test_a_wrong_resolution_makes_no_giant_thumbnail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """250 nm in a column of µm would ask for all pixels of the finest level."""
    monkeypatch.setattr("persam_monai.slides.slide.LARGEST_THUMBNAIL", 100 * 100)
    with Slide(write_slide(tmp_path / "slide.tif", [smooth(SIDE, SIDE)], "deflate"), 250.0) as slide:
        assert slide.thumbnail(8.0).shape == (100, 100, 3)


def test_an_error_of_any_kind_in_a_library_names_the_slide(tmp_path: Path) -> None:
    path = write_slide(tmp_path / "slide.svs", [smooth(SIDE, SIDE)], "jpeg2000")
    content = path.read_bytes()
    overwrite_bytes(path, content.index(b"AppMag"), b"\xff")  # OpenSlide's properties raise a KeyError
    with pytest.raises(UserError, match=r"slide\.svs cannot be opened: KeyError"):
        read_header(path)


def test_a_slide_that_shrinks_while_it_is_open_is_an_error(tmp_path: Path) -> None:
    """A copy that is still being written, or a network drive that fails."""
    path = write_slide(tmp_path / "slide.tif", [smooth(SIDE, SIDE)])
    with Slide(path) as slide:
        slide.read_patches(np.array([[270, 270]]), 200, 0.25)
        cut(0.3)(path)
        with pytest.raises(UserError, match=r"slide\.tif cannot be decoded.*cut off"):
            slide.read_patches(np.array([[270, 270]]), 200, 0.25)
