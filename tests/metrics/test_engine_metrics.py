# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math
from typing import Any, NamedTuple, cast

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from ignite.engine import Engine, Events
from monai.engines import SupervisedEvaluator
from sklearn.metrics import accuracy_score

from persam_monai.cohort import Cohort
from persam_monai.data import BagDataset, PatchSettings, RandomBags, SlidePatches
from persam_monai.errors import UserError
from persam_monai.metrics import SlideLoss, VoteScore, VoteTemperature, fit_temperature
from persam_monai.networks import AttendingNetwork, PersAMHead, PersAMOnFeatures

SLIDES = [[0, 0, 1], [1, 2, 0], [2]]  # batches of bags; the slides' labels are 1, 0, 0


class Found(NamedTuple):
    logits: torch.Tensor
    other: torch.Tensor


@pytest.fixture
def dataset(cohort: Cohort) -> BagDataset:
    return BagDataset(cohort, RandomBags(2, 1), SlidePatches(PatchSettings()))


@pytest.fixture
def batches() -> list[dict[str, Any]]:
    torch.manual_seed(4)
    labels = torch.tensor([1, 0, 0])
    return [
        {"slide": torch.tensor(slides), "logits": torch.randn(len(slides), 2), "label": labels[slides]}
        for slides in SLIDES
    ]


def engine() -> Engine:
    def step(engine: Engine, batch: dict[str, Any]) -> dict[str, Any]:
        return {"pred": Found(batch["logits"], batch["logits"] * 2), "label": batch["label"]}

    return Engine(step)


def cross_entropy(found: Found, labels: torch.Tensor) -> torch.Tensor:
    assert torch.equal(found.other, found.logits * 2)
    return F.cross_entropy(found.logits, labels)


def votes(batches: list[dict[str, Any]]) -> np.ndarray:
    """Mean log-probabilities of the three slides."""
    slides = torch.cat([batch["slide"] for batch in batches])
    logs = torch.cat([batch["logits"] for batch in batches]).double().log_softmax(1)
    return torch.stack([logs[slides == i].mean(0) for i in range(3)]).numpy()


def test_scores_are_of_slides_and_patients_never_of_bags(dataset: BagDataset, batches: list[dict[str, Any]]) -> None:
    run = engine()
    VoteScore(dataset, "accuracy", "slide").attach(run, "slide")
    VoteScore(dataset, "accuracy", "patient").attach(run, "patient")
    metrics = run.run(batches).metrics
    by_slide = votes(batches)
    by_slide = by_slide - np.log(np.exp(by_slide).sum(axis=1, keepdims=True))
    assert metrics["slide"] == pytest.approx(accuracy_score([1, 0, 0], by_slide.argmax(axis=1)))
    by_patient = np.stack([by_slide[0], by_slide[1:].mean(axis=0)])
    assert metrics["patient"] == pytest.approx(accuracy_score([1, 0], by_patient.argmax(axis=1)))


def test_every_epoch_is_scored_by_itself(dataset: BagDataset, batches: list[dict[str, Any]]) -> None:
    run = engine()
    VoteScore(dataset, "accuracy").attach(run, "accuracy")
    SlideLoss(cross_entropy).attach(run, "loss")
    for batch in batches:
        batch["logits"] = 5 * F.one_hot(batch["label"], 2).float()
    assert run.run(batches).metrics["accuracy"] == 1
    right = run.state.metrics["loss"]
    for batch in batches:
        batch["logits"] = -batch["logits"]
    run.run(batches)
    assert run.state.metrics["accuracy"] == 0
    assert run.state.metrics["loss"] == pytest.approx(right + 5)


def test_a_large_slides_loss_weighs_like_a_small_ones(batches: list[dict[str, Any]]) -> None:
    run = engine()
    SlideLoss(cross_entropy).attach(run, "loss")
    slides = torch.cat([batch["slide"] for batch in batches])
    logits, labels = (torch.cat([batch[name] for batch in batches]) for name in ("logits", "label"))
    bags = F.cross_entropy(logits, labels, reduction="none")
    wanted = torch.stack([bags[slides == i].mean() for i in range(3)]).mean()
    assert run.run(batches).metrics["loss"] == pytest.approx(float(wanted), rel=1e-6)
    assert float(wanted) != pytest.approx(float(bags.mean()), rel=1e-3)


def test_without_bags_nothing_is_scored(dataset: BagDataset) -> None:
    assert math.isnan(VoteScore(dataset).compute())
    assert math.isnan(SlideLoss(cast(Any, cross_entropy)).compute())


def test_unknown_scores_and_levels_are_refused(dataset: BagDataset) -> None:
    with pytest.raises(UserError, match=r"score is 'acuracy'.*Did you mean .accuracy."):
        VoteScore(dataset, "acuracy")
    with pytest.raises(UserError, match="level is 'bag'; expected one of slide, patient"):
        VoteScore(dataset, "accuracy", "bag")


@pytest.mark.parametrize("bad", [0, 1, 2])
def test_slides_that_turn_out_to_be_damaged_do_not_count_although_some_of_their_bags_voted(
    dataset: BagDataset, batches: list[dict[str, Any]], bad: int
) -> None:
    run, clean = engine(), engine()
    for one, bags in ((run, dataset), (clean, BagDataset(dataset.data, dataset.draw, dataset.source))):
        VoteScore(bags, "accuracy", "slide").attach(one, "slide")
        VoteScore(bags, "accuracy", "patient").attach(one, "patient")
        SlideLoss(cross_entropy, bags).attach(one, "loss")
    # Found damaged when some bags, not the last ones, have voted.
    run.add_event_handler(Events.ITERATION_COMPLETED(once=2), lambda: dataset.skipped.add(bad))
    keep = [[i for i, slide in enumerate(batch["slide"].tolist()) if slide != bad] for batch in batches]
    rest = [{name: field[rows] for name, field in batch.items()} for batch, rows in zip(batches, keep, strict=True)]
    found, wanted = run.run(batches).metrics, clean.run([batch for batch in rest if len(batch["slide"])]).metrics
    assert found == pytest.approx(wanted)
    slides = torch.cat([batch["slide"] for batch in batches])
    losses = torch.cat([F.cross_entropy(b["logits"], b["label"], reduction="none") for b in batches])
    means = [losses[slides == i].mean() for i in range(3) if i != bad]
    assert found["loss"] == pytest.approx(float(torch.stack(means).mean()), rel=1e-6)


def test_without_a_dataset_every_slide_counts(dataset: BagDataset, batches: list[dict[str, Any]]) -> None:
    dataset.skipped.update({0, 1})
    alone, told = engine(), engine()
    SlideLoss(cross_entropy).attach(alone, "loss")
    SlideLoss(cross_entropy, dataset).attach(told, "loss")
    third = [(batches[1]["logits"][1:2], batches[1]["label"][1:2]), (batches[2]["logits"], batches[2]["label"])]
    wanted = sum(float(F.cross_entropy(*bag)) for bag in third) / 2
    assert told.run(batches).metrics["loss"] == pytest.approx(wanted, rel=1e-6)
    assert alone.run(batches).metrics["loss"] != pytest.approx(wanted, rel=1e-3)


def test_every_reading_is_tried_as_it_will_predict_in_the_middle_of_a_training(dataset: BagDataset) -> None:
    torch.manual_seed(6)
    head = PersAMHead(2, [2], 4, 8, None, heads=2, feedforward=8, dropout=0.5, clinical_dropout=0.5, readings=True)
    head.fit_records(torch.randn(9, 2))
    network = AttendingNetwork(PersAMOnFeatures(head), "float32").train()
    batches = [
        {"slide": torch.tensor([slide]), "image": torch.randn(1, 4, 5), "clinical": torch.randn(1, 2)}
        for slide in range(3)
    ]
    evaluator = SupervisedEvaluator(
        torch.device("cpu"),
        batches,
        network,
        prepare_batch=lambda batch, *_, **__: (batch["image"], torch.zeros(1), (), {"clinical": batch["clinical"]}),
        decollate=False,
    )
    metric = VoteTemperature(dataset, head=head)
    metric.attach(evaluator, "temperature")
    evaluator.run()
    assert network.training
    chosen = int(cast(torch.Tensor, head.reading))
    head.eval()
    for i, reading in enumerate(head.readings):
        head.read(reading)
        logits = torch.cat([head(batch["image"], batch["clinical"]) for batch in batches])
        np.testing.assert_allclose(
            metric.votes[reading].slides().probabilities, logits.softmax(1).detach().numpy(), rtol=1e-5
        )
        if i == chosen:
            patients = metric.votes[reading].patients()
            assert evaluator.state.metrics["temperature"] == fit_temperature(patients.probabilities, patients.labels)
