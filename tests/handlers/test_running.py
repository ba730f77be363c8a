# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from ignite.engine import Engine, Events
from ignite.metrics import Average
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.handlers import StatsHandler

from persam_monai.handlers import EpochLine
from persam_monai.handlers.running import FollowLoader, Running


def drawn(seed: int, first_epoch: int = 1, noise: int = 0) -> dict[int, float]:
    """What each epoch draws; ``noise`` numbers are drawn before."""
    found: dict[int, float] = {}

    def step(engine: Engine, batch: int) -> None:
        found[engine.state.epoch] = float(torch.rand(()))

    engine = Engine(step)
    Running("Training", seed).attach(engine)
    torch.rand(noise)
    if first_epoch > 1:
        engine.load_state_dict({"epoch": first_epoch - 1, "max_epochs": 4, "epoch_length": 1})
    engine.run([0], max_epochs=4)
    return found


def test_an_epochs_random_numbers_depend_on_seed_and_epoch_alone() -> None:
    whole = drawn(7)
    assert drawn(7, noise=100) == whole
    assert drawn(7, first_epoch=3) == {epoch: whole[epoch] for epoch in (3, 4)}
    assert len(set(whole.values())) == 4
    assert not set(whole.values()) & set(drawn(8).values())


def test_errors_reach_the_caller_without_a_traceback_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    def step(engine: Engine, batch: int) -> None:
        raise ValueError("broken")

    engine = Engine(step)
    Running("Training").attach(engine)
    StatsHandler(iteration_log=False, name="stats").attach(engine)
    with caplog.at_level(logging.INFO), pytest.raises(ValueError, match="broken"):
        engine.run([0])
    assert not [record for record in caplog.records if record.exc_info or "Traceback" in record.getMessage()]


class Shrinking:
    """A loader of numbers, of which some are lost in the middle of an epoch, and in all later ones.

    Args:
        lost: for each epoch, the numbers that are lost in it.
    """

    def __init__(self, length: int, lost: dict[int, set[int]]) -> None:
        self.numbers = list(range(length))
        self.lost = lost
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.numbers)

    def __iter__(self) -> Iterator[int]:
        self.epoch += 1
        gone = self.lost.get(self.epoch, set())
        for number in list(self.numbers):
            if number in gone:
                self.numbers.remove(number)
            else:
                yield number


class Diary:
    """What an engine does: the batches of each epoch, and whether it was completed."""

    def __init__(self, engine: Engine) -> None:
        self.batches: dict[int, list[Any]] = {}
        self.completed: list[int] = []
        self.engine = engine
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.iteration)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.epoch)

    def iteration(self) -> None:
        state = self.engine.state
        self.batches.setdefault(state.epoch, []).append(state.batch)

    def epoch(self) -> None:
        self.completed.append(self.engine.state.epoch)
        state = self.engine.state
        assert state.iteration == state.epoch * state.epoch_length, "a checkpoint would be taken up in another epoch"


def followed(step: Callable[[Engine, Any], Any] = lambda engine, batch: None) -> tuple[Engine, Diary]:
    engine = Engine(step)
    FollowLoader().attach(engine)
    return engine, Diary(engine)


@pytest.mark.parametrize("lost", [{2}, {0}, {5}, {4, 5}, {0, 1, 2, 3, 4}, {1, 3, 5}])
@pytest.mark.parametrize("when", [1, 2, 4])
def test_an_epoch_ends_with_its_loader_and_no_batch_comes_twice(lost: set[int], when: int) -> None:
    engine, diary = followed()
    state = engine.run(Shrinking(6, {when: lost}), max_epochs=4)
    rest = [number for number in range(6) if number not in lost]
    assert diary.batches == {epoch: list(range(6)) if epoch < when else rest for epoch in (1, 2, 3, 4)}
    assert diary.completed == [1, 2, 3, 4]
    assert (state.epoch, state.epoch_length) == (4, 6 if when == 4 else len(rest))


def test_epochs_may_shrink_again_and_again() -> None:
    engine, diary = followed()
    engine.run(Shrinking(9, {1: {8}, 2: {0, 1}, 3: {7}, 5: {2}}), max_epochs=6)
    assert diary.batches == {
        1: [0, 1, 2, 3, 4, 5, 6, 7],
        2: [2, 3, 4, 5, 6, 7],
        3: [2, 3, 4, 5, 6],
        4: [2, 3, 4, 5, 6],
        5: [3, 4, 5, 6],
        6: [3, 4, 5, 6],
    }
    assert diary.completed == [1, 2, 3, 4, 5, 6]


def test_without_the_handler_batches_would_come_twice() -> None:
    engine = Engine(lambda engine, batch: None)
    diary = Diary(engine)
    engine.run(Shrinking(6, {1: {2}}), max_epochs=1)
    assert diary.batches == {1: [0, 1, 3, 4, 5, 0]}


@pytest.mark.parametrize("stop", [1, 2, 3, 4])
def test_a_training_that_lost_batches_is_taken_up_at_the_right_epoch(stop: int) -> None:
    whole, wanted = followed()
    whole.run(Shrinking(6, {2: {3, 4}}), max_epochs=5)

    first, _ = followed()
    saved: dict[str, Any] = {}
    loader = Shrinking(6, {2: {3, 4}})

    def save(engine: Engine) -> None:
        saved.update(engine.state_dict())
        engine.terminate()

    first.add_event_handler(Events.EPOCH_COMPLETED(once=stop), save)
    first.run(loader, max_epochs=5)

    again, diary = followed()
    again.add_event_handler(Events.STARTED, lambda engine: engine.load_state_dict(saved))
    rest = Shrinking(6, {2 - stop: {3, 4}})  # its first epoch is the training's next
    if stop >= 2:
        rest.numbers = [0, 1, 2, 5]
    again.run(rest, max_epochs=5)
    assert diary.batches == {epoch: wanted.batches[epoch] for epoch in range(stop + 1, 6)}
    assert diary.completed == list(range(stop + 1, 6))


def test_a_checkpoint_of_longer_epochs_is_taken_up_at_the_right_epoch() -> None:
    engine, diary = followed()
    saved = {"epoch_length": 6, "iteration": 18, "max_epochs": 5}
    engine.add_event_handler(Events.STARTED, lambda engine: engine.load_state_dict(saved))
    state = engine.run(Shrinking(4, {}), max_epochs=5)
    assert diary.batches == {4: [0, 1, 2, 3], 5: [0, 1, 2, 3]}
    assert state.iteration == 20


class Bags(torch.utils.data.Dataset[int]):
    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, i: int) -> int:
        return i


class ShrinkingLoader(torch.utils.data.DataLoader[Any]):
    """The same as a data loader that makes MONAI's batches."""

    def __init__(self, length: int, lost: dict[int, set[int]]) -> None:
        super().__init__(Bags(length))
        self.source = Shrinking(length, lost)

    def __len__(self) -> int:
        return len(self.source)

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        for number in self.source:
            yield {"image": torch.full((1, 1), float(number + 1)), "label": torch.tensor([number])}


@pytest.mark.parametrize("accumulation_steps", [1, 2, 3])
def test_a_trainer_that_accumulates_gradients_steps_in_shortened_epochs(accumulation_steps: int) -> None:
    network = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(network.weight)
    steps: dict[int, list[float]] = {}

    class Optimizer(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            gradient = network.weight.grad
            assert gradient is not None
            steps.setdefault(trainer.state.epoch, []).append(float(gradient))
            return super().step(closure)

    trainer = SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=3,
        train_data_loader=ShrinkingLoader(7, {1: {0, 4}}),
        network=network,
        optimizer=Optimizer(network.parameters(), lr=0),
        loss_function=lambda prediction, label: prediction.sum(),
        accumulation_steps=accumulation_steps,
        train_handlers=[Running("Running")],
        decollate=False,
    )
    diary = Diary(trainer)
    trainer.run()
    images = {epoch: [float(batch["image"]) for batch in batches] for epoch, batches in diary.batches.items()}
    assert images == {epoch: [2, 3, 4, 6, 7] for epoch in (1, 2, 3)}
    assert diary.completed == [1, 2, 3]
    chunks = [images[1][first : first + accumulation_steps] for first in range(0, len(images[1]), accumulation_steps)]
    for epoch in (2, 3):  # the last, shorter sum is stepped as well
        assert len(steps[epoch]) == len(chunks)
        ratios = [found / sum(chunk) for found, chunk in zip(steps[epoch], chunks, strict=True)]
        assert ratios[: len(chunks) - 1] == pytest.approx([1 / accumulation_steps] * (len(chunks) - 1))
    full = [chunk for chunk in chunks if len(chunk) == accumulation_steps]
    assert steps[1] == pytest.approx([sum(chunk) / accumulation_steps for chunk in full])


def test_an_evaluator_follows_its_loader_in_every_run() -> None:
    network = torch.nn.Linear(1, 1)
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=ShrinkingLoader(6, {2: {1, 2}, 4: {5}}),
        network=network,
        val_handlers=[Running("Running")],
        decollate=False,
    )
    runs: list[list[int]] = []
    evaluator.add_event_handler(Events.EPOCH_STARTED, lambda engine: runs.append([]))
    evaluator.add_event_handler(
        Events.ITERATION_COMPLETED, lambda engine: runs[-1].append(int(engine.state.batch["label"]))
    )
    completed: list[int] = []
    evaluator.add_event_handler(Events.EPOCH_COMPLETED, lambda engine: completed.append(engine.state.epoch))
    for epoch in range(1, 6):
        evaluator.run(epoch)
    assert runs == [[0, 1, 2, 3, 4, 5], [0, 3, 4, 5], [0, 3, 4, 5], [0, 3, 4], [0, 3, 4]]
    assert completed == [1, 2, 3, 4, 5]


def test_metrics_of_a_shortened_epoch_are_of_its_batches() -> None:
    engine, _ = followed(lambda engine, batch: float(batch))
    Average().attach(engine, "mean")
    means = []
    engine.add_event_handler(Events.EPOCH_COMPLETED, lambda engine: means.append(engine.state.metrics["mean"]))
    engine.run(Shrinking(6, {2: {5}}), max_epochs=3)
    assert means == pytest.approx([2.5, 2, 2])


def test_an_epoch_is_one_line_with_losses_rate_time_and_the_best(caplog: pytest.LogCaptureFixture) -> None:
    validator, best = Engine(lambda engine, batch: None), SimpleNamespace(epoch=0)
    trainer: Any = Engine(lambda engine, batch: None)
    trainer.optimizer = SimpleNamespace(param_groups=[{"lr": 0.002}, {"lr": 0.0001}])

    @trainer.on(Events.EPOCH_COMPLETED)
    def validate(engine: Engine) -> None:
        engine.state.metrics["train_loss"] = 0.61234
        if engine.state.epoch != 2:  # every other epoch
            validator.state.epoch, validator.state.metrics = engine.state.epoch, {"val_loss": 0.9}
            best.epoch = 3 if engine.state.epoch == 3 else 0

    EpochLine(validator, cast(Any, best)).attach(trainer)
    with caplog.at_level(logging.INFO, "persam_monai"):
        trainer.run([0], max_epochs=3)
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("persam_monai")]
    assert lines == [
        "epoch 1/3  train_loss 0.612  val_loss 0.9  lr 0.002  0 s, 0 s left",
        "epoch 2/3  train_loss 0.612  lr 0.002  0 s, 0 s left",
        "epoch 3/3  train_loss 0.612  val_loss 0.9  lr 0.002  0 s  * best",
    ]
