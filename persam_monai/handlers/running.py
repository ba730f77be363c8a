# SPDX-License-Identifier: Apache-2.0
"""What every engine of the bundle does besides its work."""

from __future__ import annotations

import logging
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from ignite.engine import Engine, Events
from ignite.handlers import ProgressBar

from persam_monai.data import generator_for
from persam_monai.handlers.saving import BestModelSaver

logger = logging.getLogger(__name__)

Handler = TypeVar("Handler")

# Those that asked for an end. The exit raised in a signal's handler is lost where Python is in the middle of a fork or
# of finalising; engines look here after every batch.
stop_signals: list[int] = []


@contextmanager
def orderly_end() -> Iterator[None]:
    """Let SIGTERM, by which schedulers and containers stop, end the block like an exit, with everything closed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: object) -> None:
        stop_signals.append(number)
        sys.exit(128 + number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        stop_signals.clear()


def shared_handler(handler: Handler) -> Handler:
    """A handler that other parts of a config use too, as an entry of a list of handlers.

    MONAI's ``check_properties`` reads ``_target_`` of every entry, which a bare reference does not have.
    """
    return handler


class FollowLoader:
    """Lets an epoch be as long as its loader has batches.

    Ignite takes the length of an epoch from the first one and begins with the data anew when they end sooner; bags
    would be counted twice when a slide is skipped in the middle of an epoch. Such an epoch ends early instead, and
    those that follow are shorter. (What gradients had been accumulated for a step that does not come are dropped.)
    """

    def __init__(self) -> None:
        self.batches = 0

    def attach(self, engine: Engine) -> None:
        """Follow the loader of ``engine``."""
        engine.add_event_handler(Events.EPOCH_STARTED, self.started)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.counted)
        engine.add_event_handler(Events.DATALOADER_STOP_ITERATION, self.stopped)

    def started(self, engine: Engine) -> None:
        """Take the length from the loader; iterations are counted as if all epochs had had it."""
        self.batches = 0
        before, engine.state.epoch_length = engine.state.epoch_length, len(engine.state.dataloader)
        if before:
            engine.state.iteration = engine.state.iteration // before * engine.state.epoch_length

    def counted(self, engine: Engine) -> None:
        """Count a batch."""
        self.batches += 1

    def stopped(self, engine: Engine) -> None:
        """End the epoch, unless the data end because a new one has just begun."""
        if self.batches:
            engine.state.iteration += engine.state.epoch_length - self.batches
            engine.terminate_epoch()


class Running:
    """Errors, the length of an epoch, a progress bar and, in training, the random state. Attach it first.

    Errors are handed on to the caller: without that, MONAI's ``StatsHandler`` prints a traceback in the middle of the
    log, and an engine with any other handler of errors swallows them.

    Args:
        label: of the progress bar, which terminals show while an epoch runs.
        seed: of a training: torch's random state is set from it and the epoch when an epoch starts, so that a resumed
            training draws what an uninterrupted one would; ``None`` sets nothing.
    """

    def __init__(self, label: str, seed: int | None = None) -> None:
        self.label = label
        self.seed = seed

    def attach(self, engine: Engine) -> None:
        """Attach all of it to ``engine``."""
        engine.add_event_handler(Events.EXCEPTION_RAISED, self.raise_error)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.stop_if_asked)
        FollowLoader().attach(engine)
        if self.seed is not None:
            engine.add_event_handler(Events.EPOCH_STARTED, self.seed_epoch)
        ProgressBar(desc=self.label, disable=None).attach(engine)  # None: where the screen is a terminal

    def raise_error(self, engine: Engine, error: BaseException) -> None:
        """Raise ``error``."""
        raise error

    def stop_if_asked(self, engine: Engine) -> None:
        """Exit if a stop signal came whose exit was lost."""
        if stop_signals:
            sys.exit(128 + stop_signals[0])

    def seed_epoch(self, engine: Engine) -> None:
        """Seed the epoch that begins."""
        torch.manual_seed(int(generator_for(self.seed or 0, "torch", engine.state.epoch).integers(2**63)))


class EpochLine:
    """Logs one line per epoch: losses, metrics, learning rate, time, and whether the model was saved.

    Attach it to the trainer, behind the handler that validates.

    Args:
        validator: the validation engine.
        best_model: saves the best model.
    """

    def __init__(self, validator: Engine, best_model: BestModelSaver) -> None:
        self.validator = validator
        self.best_model = best_model
        self.began = 0.0
        self.seconds: list[float] = []

    def attach(self, engine: Engine) -> None:
        """Time every epoch of ``engine`` and log its line."""
        engine.add_event_handler(Events.EPOCH_STARTED, self.started)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.completed)

    def started(self, engine: Engine) -> None:
        """Note the time and the learning rate."""
        self.began = time.monotonic()
        self.rate = max(group["lr"] for group in engine.optimizer.param_groups)

    def completed(self, engine: Engine) -> None:
        """Log the line of the epoch."""
        epoch, last = engine.state.epoch, engine.state.max_epochs or engine.state.epoch
        self.seconds.append(time.monotonic() - self.began)
        metrics = dict(engine.state.metrics)
        if self.validator.state.epoch == epoch:
            metrics |= {k: v for k, v in self.validator.state.metrics.items() if k != "val_temperature"}
        parts = [f"epoch {epoch}/{last}", *(f"{name} {value:.3g}" for name, value in metrics.items())]
        remaining = (last - epoch) * sum(self.seconds) / len(self.seconds)
        duration = [_duration(self.seconds[-1]), *([f"{_duration(remaining)} left"] if epoch < last else [])]
        parts += [f"lr {self.rate:.2g}", ", ".join(duration), *(["* best"] if self.best_model.epoch == epoch else [])]
        logger.info("%s", "  ".join(parts))


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"
