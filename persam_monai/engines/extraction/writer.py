# SPDX-License-Identifier: Apache-2.0
"""Features on their way from the device to their files, while the next slide is read."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from types import TracebackType

import numpy as np
import torch
from torch import Tensor

from persam_monai.data.features import write_features
from persam_monai.engines.extraction.locks import FileLock
from persam_monai.engines.extraction.targets import Target
from persam_monai.errors import UserError

QUEUED = 2  # slides that wait for their files: their features take the device's memory


@dataclass
class SlideFeatures:
    """The features of one slide, as they come from the extractor.

    Attributes:
        target: where they go.
        lock: held until the file is there.
        count: number of patches when they are complete.
        extent: width and height of a patch in level-0 pixels.
        received: number of patches that have come.
    """

    target: Target
    lock: FileLock
    count: int
    extent: tuple[float, float]
    received: int = field(default=0, init=False)
    _features: list[Tensor] = field(default_factory=list, repr=False)
    _locations: list[Tensor] = field(default_factory=list, repr=False)
    _finite: list[Tensor] = field(default_factory=list, repr=False)

    def add(self, features: Tensor, locations: Tensor) -> bool:
        """Take the next patches' features, as the file will have them; nothing waits for the device here.

        Args:
            features: ``[n, D]``, on the device.
            locations: ``[n, 2]`` level-0 positions, on the host.

        Returns:
            Whether these were the last.
        """
        self._finite.append(features.isfinite().all())
        self._features.append(features.to(getattr(torch, self.target.dtype)))
        self._locations.append(locations)
        self.received += len(features)
        return self.received == self.count

    def write(self) -> None:
        """Write the file, and let go of it.

        Raises:
            UserError: if the features are no numbers or do not fit into the file's type, or the file cannot be written.
        """
        try:
            if not bool(torch.stack(self._finite).all()):
                raise UserError(
                    f"The extractor gives NaN or infinite features for slide {self.target.entry.path}. Look at its "
                    "weights and at --precision."
                )
            if self.lock.keeps_others_out:  # or another process may be writing just now
                for killed in self.target.file.parent.glob(_partials(self.target.file.name)):
                    killed.unlink(missing_ok=True)  # what a process that was killed has left of this file
            features, locations = torch.cat(self._features).cpu().numpy(), torch.cat(self._locations).numpy()
            write_features(
                self.target.file,
                features,
                locations.astype(np.int64, copy=False),
                self.target.made,
                self.extent,
                self.target.fingerprint,
            )
        finally:
            self.lock.release()


class Writer:
    """Writes slides one after the other in a thread; a context, at whose end nothing is being written any more."""

    def __init__(self) -> None:
        self.written = 0
        self._thread = ThreadPoolExecutor(1, "features")
        self._waiting: deque[Future[None]] = deque()

    def put(self, slide: SlideFeatures) -> None:
        """Write a slide as soon as those before it are written; waits if too many are waiting.

        Raises:
            UserError: what went wrong with an earlier one.
        """
        while len(self._waiting) >= QUEUED:
            self._waiting.popleft().result()
        self._waiting.append(self._thread.submit(self._write, slide))

    def check(self) -> None:
        """Raise what went wrong by now, if something did."""
        while self._waiting and self._waiting[0].done():
            self._waiting.popleft().result()

    def finish(self) -> None:
        """Wait until all is written."""
        while self._waiting:
            self._waiting.popleft().result()

    def _write(self, slide: SlideFeatures) -> None:
        slide.write()
        self.written += 1

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)


def _partials(name: str) -> str:
    """A pattern for the half-written files of ``name``, as :func:`persam_monai.files.replacing` calls them."""
    quoted = "".join(f"[{sign}]" if sign in "*?[" else sign for sign in name)
    return f".{quoted}.*.partial"
