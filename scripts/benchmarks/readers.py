# SPDX-License-Identifier: Apache-2.0
"""Contenders at reading, each with its rate: our loader, MONAI's, the slide libraries, the decoder alone."""

from __future__ import annotations

import math
import multiprocessing
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import openslide
import tifffile
from cucim.clara import CuImage
from monai.data import DataLoader as MonaiLoader
from monai.data import PatchWSIDataset

from persam_monai.clinical import ClinicalSchema
from persam_monai.cohort import Cohort, SlideEntry
from persam_monai.data import BagDataset, BagLoader, PatchSettings, RandomBags, SlidePatches
from persam_monai.slides.tiles import off_boundary

SIZE = 224  # px, side of a patch
BAG = 100  # patches in a bag, and in a batch of other loaders
WORKERS = 2
PREFETCH = 2  # batches that each worker runs ahead: PyTorch's default
MOST_BAGS = 5000  # an end for what could go on for ever
CODECS = {7: "jpeg", 33003: "jpeg2000", 33005: "jpeg2000", 34712: "jpeg2000"}  # by TIFF tag Compression
RGB = 2  # TIFF tag PhotometricInterpretation

Read = Callable[[np.ndarray], object]  # reads patches at locations [n, 2]


@dataclass(frozen=True)
class RepeatedBags(RandomBags):
    """A draw that goes through the slide again and again, so that one small slide gives any number of bags."""

    max_bags_per_slide: int = MOST_BAGS

    def count(self, cells: int) -> int:
        """So many that no measurement comes to the end."""
        return MOST_BAGS

    def choose(self, cells: int, slide: str, epoch: int, bag: int) -> np.ndarray:
        """The bags of one epoch, then those of the next."""
        epoch, bag = divmod(bag, super().count(cells))
        return super().choose(cells, slide, epoch, bag)


def slide_bags(path: Path, patches: PatchSettings, bag_size: int) -> BagDataset:
    """Bags of one slide, prepared."""
    entry = SlideEntry(path.name, path, path.stem, None, np.empty(0, np.float32), None, None, 1)
    cohort = Cohort((entry,), ClinicalSchema.without_record(("any",)), str(path))
    label = f"{path.name}, {patches.backend}"
    return BagDataset(cohort, RepeatedBags(bag_size), SlidePatches(patches), label=label).prepare()


def loader_rate(bags: BagDataset, count: int, deadline: float = math.inf) -> float:
    """Patches per second of our loader where ``count`` of its bags are taken, by two workers of one thread each."""
    loader = BagLoader(bags, num_workers=WORKERS, threads=1)  # as many cores as the decoder alone has
    return _steady_rate(loader, lambda batch: int(batch["mask"].sum()), min(count, MOST_BAGS // 2), deadline)


def monai_rate(
    path: Path, locations: np.ndarray, reader: str, batch_size: int, count: int, deadline: float = math.inf
) -> float:
    """Patches per second of MONAI's ``PatchWSIDataset`` in its data loader, level 0.

    Args:
        path: the slide.
        locations: ``[N, 2]`` corners (x, y), gone through again and again.
        reader: MONAI's name of it: ``cucim`` or ``openslide``.
        batch_size: patches in a batch.
        count: batches that are counted.
        deadline: see :func:`_steady_rate`.
    """
    needed = (count + 2 * WORKERS * PREFETCH) * batch_size  # also before the clock starts and when it stops
    rows = np.resize(locations, (needed, 2))[:, ::-1].tolist()  # (y, x), as MONAI has them
    dataset = PatchWSIDataset(
        [{"image": str(path), "location": row} for row in rows],
        patch_size=SIZE,
        patch_level=0,
        include_label=False,
        center_location=False,
        reader=reader,
    )
    loader = MonaiLoader(dataset, batch_size=batch_size, num_workers=WORKERS, prefetch_factor=PREFETCH)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # every worker would warn that the reader's array cannot be written to
        return _steady_rate(loader, lambda batch: len(batch["image"]), count, deadline)


def _steady_rate(loader: Iterable[Any], size_of: Callable[[Any], int], count: int, deadline: float) -> float:
    """Patches per second once the pipeline is full.

    Workers run ahead by :data:`PREFETCH` batches each. The clock starts when as many have been taken, which leaves
    the start of the workers behind, and stops at the arrival of a batch while there is still work ahead. So what was
    under way when it started, and is counted, is made up for by what is under way when it stops, and is not. After
    ``deadline`` (of :func:`time.monotonic`) one batch is enough.
    """
    iterator = iter(loader)
    for _ in range(WORKERS * PREFETCH):
        next(iterator)
    start = time.perf_counter()
    patches = 0
    for _ in range(count):
        patches += size_of(next(iterator))
        if time.monotonic() > deadline:
            break
    return patches / (time.perf_counter() - start)


def rate_in_processes(open_slide: Callable[[], Read], locations: np.ndarray, processes: int) -> float:
    """How fast patches come when processes share the work: the clock runs while they read, not while they start.

    Args:
        open_slide: run in each process; opens the slide and returns what reads patches.
        locations: ``[N, 2]`` level-0 corners (x, y), dealt out to the processes.
        processes: how many.

    Returns:
        Locations per second, until the last process is ready.

    Raises:
        RuntimeError: if a process fails; its traceback is on the error output.
    """
    context = multiprocessing.get_context("fork")  # takes closures along, and is how data loaders start their workers
    ends = []
    for first in range(processes):
        end, other = context.Pipe()
        part = locations[first::processes]
        context.Process(target=_read_when_asked, args=(other, open_slide, part), daemon=True).start()
        other.close()  # so that the end of the process, even a crash, ends the waiting for it
        ends.append(end)
    try:
        for end in ends:
            end.recv()
        start = time.perf_counter()
        for end in ends:
            end.send("start")
        for end in ends:
            end.recv()
        return len(locations) / (time.perf_counter() - start)
    except (EOFError, BrokenPipeError) as error:
        raise RuntimeError("a process that read patches ended early") from error


def _read_when_asked(end: Connection, open_slide: Callable[[], Read], locations: np.ndarray) -> None:
    """Open, read one patch to warm up, and read all when the start is given."""
    read = open_slide()
    read(locations[:1])
    end.send("ready")
    end.recv()
    read(locations)
    end.send("done")


def openslide_regions(path: Path) -> Read:
    """One ``read_region`` of OpenSlide for each patch, as RGB."""
    slide = openslide.OpenSlide(str(path))
    slide.set_cache(openslide.OpenSlideCache(0))  # a slide of usual size is a hundred times larger than the cache

    def read(locations: np.ndarray) -> None:
        for x, y in locations.tolist():
            np.asarray(slide.read_region((x, y), 0, (SIZE, SIZE)).convert("RGB"))

    return read


def cucim_regions(path: Path) -> Read:
    """One ``read_region`` of cuCIM for each patch."""
    slide = CuImage(str(path))

    def read(locations: np.ndarray) -> None:
        for x, y in locations.tolist():
            np.asarray(slide.read_region((x, y), (SIZE, SIZE), 0))

    return read


def cucim_batches(path: Path) -> Read:
    """cuCIM's batched ``read_region`` with two threads of its own."""
    slide = CuImage(str(path))

    def read(locations: np.ndarray) -> None:
        corners = [tuple(location) for location in locations.tolist()]
        if len(corners) == 1:  # cuCIM returns a single region otherwise than a batch
            np.asarray(slide.read_region(corners[0], (SIZE, SIZE), 0))
            return
        for batch in slide.read_region(corners, (SIZE, SIZE), 0, num_workers=2, batch_size=BAG):
            np.asarray(batch)

    return read


@dataclass(frozen=True)
class Tiles:
    """The encoded tiles of a slide's finest level.

    Attributes:
        path: the slide's file.
        codec: ``jpeg`` or ``jpeg2000``.
        size: width and height of a tile in pixels.
        across: tiles in a row.
        offsets: of each tile in the file, row by row.
        sizes: of each tile in bytes.
        decode: takes a tile's bytes and optionally ``out``; releases Python's lock.
        width: pixels of level 0 that a patch takes, in either direction.
    """

    path: Path
    codec: str
    size: tuple[int, int]
    across: int
    offsets: Sequence[int]
    sizes: Sequence[int]
    decode: Callable[..., np.ndarray]
    width: int

    @classmethod
    def of(cls, path: Path, width: int) -> Tiles | None:
        """The tiles of ``path``, or ``None`` if it is no tiled TIFF in JPEG or JPEG 2000."""
        try:
            with tifffile.TiffFile(path) as file:
                page = file.pages[0]
                codec = CODECS.get(int(page.compression))
                if codec is None or not page.is_tiled or 0 in page.databytecounts:  # 0: a tile that is not stored
                    return None
                decode = imagecodecs.jpeg2k_decode
                if codec == "jpeg":
                    colours = "RGB" if int(page.photometric) == RGB else "YCBCR"
                    decode = partial(
                        imagecodecs.jpeg8_decode, tables=page.jpegtables, colorspace=colours, outcolorspace="RGB"
                    )
                across = -(-page.imagewidth // page.tilewidth)
                size = (page.tilewidth, page.tilelength)
                return cls(path, codec, size, across, page.dataoffsets, page.databytecounts, decode, width)
        except tifffile.TiffFileError:
            return None

    def touched(self, locations: np.ndarray) -> list[int]:
        """Indices of the tiles under patches at ``locations`` ``[N, 2]``, patch after patch."""
        first, last = locations // self.size, (locations + self.width - 1) // self.size  # [N, 2] each
        return [
            row * self.across + column
            for (left, top), (right, bottom) in zip(first.tolist(), last.tolist(), strict=True)
            for row in range(top, bottom + 1)
            for column in range(left, right + 1)
        ]

    def read(self, indices: Sequence[int]) -> list[bytes]:
        """The tiles' bytes, in the order of ``indices``."""
        kept: dict[int, bytes] = {}
        with self.path.open("rb") as file:
            for index in sorted(set(indices)):
                file.seek(self.offsets[index])
                kept[index] = file.read(self.sizes[index])
        return [kept[index] for index in indices]

    def decoding_rate(self, needed: Sequence[int], count: int) -> float:
        """Tiles per second of the decoder on two Python threads.

        Args:
            needed: indices of tiles in the order in which patches need them, gone through again and again.
            count: tiles that are decoded.
        """
        data = self.read(np.resize(needed, count).tolist())

        def work(part: Sequence[bytes]) -> None:
            for tile in part:
                self.decode(tile)

        with ThreadPoolExecutor(2) as pool:
            start = time.perf_counter()
            list(pool.map(work, (data[0::2], data[1::2])))
            return count / (time.perf_counter() - start)

    def best_decoding_rate(self, needed: Sequence[int], count: int) -> float:
        """The same in two processes, always into the same memory, which is the fastest known."""
        data = self.read(np.resize(needed, count).tolist())
        memory = off_boundary((self.size[1], self.size[0], 3))

        def read(numbers: np.ndarray) -> None:
            for number in numbers.tolist():
                self.decode(data[number], out=memory)

        return rate_in_processes(lambda: read, np.arange(count), 2)
