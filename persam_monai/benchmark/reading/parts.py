# SPDX-License-Identifier: Apache-2.0
"""What is measured against what."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from persam_monai.benchmark.reading.decoder import DECODERS, decoding_rate
from persam_monai.benchmark.reading.effort import Effort
from persam_monai.benchmark.reading.half import departure, pillow_half, simplejpeg_half
from persam_monai.benchmark.reading.loaders import bags_rate, monai_rate, slide_bags
from persam_monai.benchmark.reading.processes import Read, rate_in_processes
from persam_monai.benchmark.reading.regions import cucim_batches, cucim_regions, openslide_regions
from persam_monai.benchmark.reading.subject import SIZE, Subject
from persam_monai.data import PatchSettings
from persam_monai.slides.backends.tiles import off_boundary

BACKENDS = ("tiles", "cucim", "openslide")  # that our loader can be made to use
LOADER = "loader_patches_per_s"  # with the backend that it chooses itself
DECODER = "decoder_2_threads_tiles_per_s"
BEST_DECODER = "decoder_at_best_2_processes_tiles_per_s"
MONAI = "monai_cucim_patches_per_s"
PROCESSES = {
    "openslide": "openslide_2_processes_patches_per_s",
    "cucim": "cucim_2_processes_patches_per_s",
}
COMPARED = 200  # tiles whose pictures at half scale are compared with the full ones
Contenders = dict[str, Callable[[int], float]]  # name, with the unit of its rate; takes how much to do


def measure_jpeg(subject: Subject, effort: Effort) -> dict[str, Any]:
    """What is usual, our loader, and the decoder alone, on a slide whose tiles are JPEG, at its own resolution.

    Args:
        subject: the slide.
        effort: how much work to measure.

    Returns:
        The slide, all rates that time allows, the most important first, and as far as they can be had
        ``ratio_to_monai``: our loader by MONAI's with cuCIM; and
        ``ratio_to_decoder``: the tiles that our loader's patches need by those that the decoder does in the same time.
    """
    path, cucim = subject.path, subject.known_to_cucim()
    contenders: Contenders = {}
    for reader in ("cucim", "openslide") if cucim else ("openslide",):
        contenders[f"monai_{reader}_patches_per_s"] = lambda n, reader=reader: monai_rate(  # type: ignore[misc]
            path, subject.uniform, SIZE, reader, effort.bag_size, effort.batches(n)
        )
    for name, processes in (("openslide_1_process", 1), ("openslide_2_processes", 2)):
        contenders[f"{name}_patches_per_s"] = _regions(
            lambda: openslide_regions(path, SIZE), subject.uniform, processes
        )
    if cucim:
        contenders["cucim_1_process_patches_per_s"] = _regions(lambda: cucim_regions(path, SIZE), subject.uniform, 1)
        for name, places in (("uniform", subject.uniform), ("snapped", subject.snapped)):
            contenders[f"cucim_batches_2_threads_{name}_patches_per_s"] = _regions(
                lambda: cucim_batches(path, SIZE, threads=2), places, 1
            )
    anywhere = slide_bags(path, PatchSettings(SIZE, subject.mpp, "uniform"), subject.bag_size)
    contenders["loader_uniform_patches_per_s"] = lambda n: bags_rate(anywhere, effort.batches(n))
    first = {name: contenders.pop(name) for name in (MONAI,) if name in contenders}
    found = _rates(first | _decoder(subject) | _loaders(subject, effort) | contenders, subject, effort)
    if MONAI in found and LOADER in found:
        found["ratio_to_monai"] = found[LOADER] / found[MONAI]
    return {"slide": subject.described, **found, **_against_decoder(subject, found)}


def measure_jpeg2000(subject: Subject, effort: Effort) -> dict[str, Any]:
    """The slide libraries, our loader, and the decoder alone, all at the same snapped places.

    For JPEG 2000, and for any slide whose tiles are not JPEG: then without the decoder.

    Args:
        subject: the slide.
        effort: how much work to measure.

    Returns:
        As :func:`measure_jpeg`, with ``ratio_to_best_backend``, our loader by the faster of OpenSlide and cuCIM in two
        processes, instead of ``ratio_to_monai``.
    """
    path, places = subject.path, subject.snapped
    contenders = {PROCESSES["openslide"]: _regions(lambda: openslide_regions(path, SIZE), places, 2)}
    if subject.known_to_cucim():
        contenders[PROCESSES["cucim"]] = _regions(lambda: cucim_regions(path, SIZE), places, 2)
    found = _rates(contenders | _decoder(subject) | _loaders(subject, effort), subject, effort)
    if LOADER in found:
        best = max(found[name] for name in PROCESSES.values() if name in found)
        found["ratio_to_best_backend"] = found[LOADER] / best
    return {"slide": subject.described, **found, **_against_decoder(subject, found)}


def measure_half_scale(subject: Subject, effort: Effort) -> dict[str, Any]:
    """Patches at twice the µm per pixel of the finest level, which has no level of its own, from JPEG tiles.

    Args:
        subject: the slide, opened at scale 2.
        effort: how much work to measure.

    Returns:
        As :func:`measure_jpeg`, without ``ratio_to_monai``; the rates of decoders that decode at half scale, and under
        ``rms_grey_levels`` how far their pictures are from the full ones averaged.
    """
    contenders = _decoder(subject) | _loaders(subject, effort, ("tiles", "cucim"))
    halves = {"simplejpeg_half": simplejpeg_half, "pillow_half": pillow_half}
    for name, decode in halves.items():
        contenders[f"{name}_2_threads_tiles_per_s"] = _decoding(subject, decode)
    found = _rates(contenders, subject, effort)
    compared = _tiles(subject, COMPARED)
    rms = {name: departure(decode, compared) for name, decode in halves.items()}
    return {"slide": subject.described, **found, **_against_decoder(subject, found), "rms_grey_levels": rms}


def _rates(contenders: Contenders, subject: Subject, effort: Effort) -> dict[str, Any]:
    """All rates; that of the backend which our loader chooses itself is not measured twice."""
    found = effort.rates(contenders)
    return found | ({f"loader_{subject.backend}_patches_per_s": found[LOADER]} if LOADER in found else {})


def _regions(open_slide: Callable[[], Read], places: np.ndarray, processes: int) -> Callable[[int], float]:
    return lambda n: rate_in_processes(open_slide, np.resize(places, (n, 2)), processes)


def _loaders(subject: Subject, effort: Effort, backends: tuple[str, ...] = BACKENDS) -> Contenders:
    """Our loader, as it is, and with each of the other backends that can read the slide."""
    contenders: Contenders = {LOADER: lambda n: bags_rate(subject.bags, effort.batches(n))}
    for backend in backends:
        if backend != subject.backend and (bags := subject.bags_by(backend)) is not None:
            contenders[f"loader_{backend}_patches_per_s"] = lambda n, bags=bags: bags_rate(  # type: ignore[misc]
                bags, effort.batches(n)
            )
    return contenders


def _decoder(subject: Subject) -> Contenders:
    """The decoder alone, where there is one."""
    if subject.tiles is None:
        return {}
    decode = DECODERS[subject.tiles.codec]
    return {DECODER: _decoding(subject, decode), BEST_DECODER: _decoding_at_best(subject, decode)}


def _decoding(subject: Subject, decode: Callable[[bytes], Any]) -> Callable[[int], float]:
    return lambda n: decoding_rate(decode, _tiles(subject, n))


def _decoding_at_best(subject: Subject, decode: Callable[..., Any]) -> Callable[[int], float]:
    """The same in two processes, always into the same memory, which is the fastest that could be found."""

    def rate(count: int) -> float:
        tiles = _tiles(subject, count)
        assert subject.tiles is not None
        room = off_boundary((subject.tiles.size[1], subject.tiles.size[0], 3))

        def read(numbers: np.ndarray) -> None:
            for number in numbers[:, 0].tolist():
                decode(tiles[number], out=room)

        return rate_in_processes(lambda: read, np.repeat(np.arange(count)[:, None], 2, axis=1), 2)

    return rate


def _tiles(subject: Subject, count: int) -> list[bytes]:
    """The bytes of ``count`` tiles, in the order in which the snapped patches need them."""
    assert subject.tiles is not None
    return subject.tiles.read(np.resize(subject.touched(subject.snapped), count).tolist())


def _against_decoder(subject: Subject, found: dict[str, Any]) -> dict[str, float]:
    """What our loader gets out of the decoder, and the tiles of a patch that it is reckoned with."""
    if subject.tiles is None:
        return {}
    per_patch = len(subject.touched(subject.snapped)) / len(subject.snapped)
    anywhere = len(subject.touched(subject.uniform)) / len(subject.uniform)
    return {
        "tiles_per_patch": per_patch,
        "tiles_per_uniform_patch": anywhere,
        **{
            ratio: found[LOADER] * per_patch / found[decoder]
            for ratio, decoder in (("ratio_to_decoder", DECODER), ("ratio_to_decoder_at_best", BEST_DECODER))
            if LOADER in found and decoder in found
        },
    }
