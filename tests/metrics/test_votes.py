# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from persam_monai.cohort.reading import SlideEntry
from persam_monai.metrics import Predictions, Votes, VoteTemperature, fit_temperature
from persam_monai.networks import PersAMHead


def entries(patients: Sequence[str], labels: Sequence[int | None]) -> list[SlideEntry]:
    return [
        SlideEntry(f"s{i}", Path(f"/s{i}"), patient, label, np.zeros(1, np.float32), None, None, i + 2)
        for i, (patient, label) in enumerate(zip(patients, labels, strict=True))
    ]


def voted(logits: torch.Tensor, slides: list[int], patients: Sequence[str], labels: Sequence[int | None]) -> Votes:
    votes = Votes(entries(patients, labels))
    votes.add(torch.tensor(slides), logits)
    return votes


def softmax(logits: np.ndarray) -> np.ndarray:
    return np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)


def geometric_mean(probabilities: np.ndarray) -> np.ndarray:
    mean = probabilities.prod(axis=0) ** (1 / len(probabilities))
    return mean / mean.sum()


def test_a_slide_is_the_geometric_mean_of_its_bags() -> None:
    logits = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    slides = [2, 0, 2, 2, 0, 2]
    predictions = voted(logits, slides, ["A", "B", "A"], [1, 0, 1]).slides()
    bags = softmax(logits.double().numpy())
    assert predictions.names == ("s0", "s2")  # the second slide has no vote
    assert predictions.patients == ("A", "A")
    assert predictions.labels.tolist() == [1, 1]
    wanted = [geometric_mean(bags[[1, 4]]), geometric_mean(bags[[0, 2, 3, 5]])]
    np.testing.assert_allclose(predictions.probabilities, wanted, rtol=1e-12)


def test_a_patient_is_the_geometric_mean_of_the_slides_however_many_bags_they_have() -> None:
    logits = torch.randn(7, 3, generator=torch.Generator().manual_seed(1))
    slides = [0, 1, 1, 1, 1, 1, 2]
    patients = voted(logits, slides, ["B", "B", "A"], [0, 0, 2]).patients()
    bags = softmax(logits.double().numpy())
    first = geometric_mean(np.stack([bags[0], geometric_mean(bags[1:6])]))
    assert patients.names == patients.patients == ("B", "A")
    assert patients.labels.tolist() == [0, 2]
    np.testing.assert_allclose(patients.probabilities, [first, bags[6]], rtol=1e-12)


def test_the_order_of_bags_and_batches_does_not_matter_in_the_last_bit() -> None:
    generator = torch.Generator().manual_seed(2)
    logits = torch.randn(200, 3, generator=generator)
    slides = torch.randint(0, 3, (200,), generator=generator)
    cohort = entries(["A", "B", "A"], [0, 1, 0])
    at_once, one_by_one = Votes(cohort), Votes(cohort)
    at_once.add(slides, logits)
    for i in torch.randperm(200, generator=generator).tolist():
        one_by_one.add(slides[i : i + 1], logits[i : i + 1])
    np.testing.assert_array_equal(at_once.slides().probabilities, one_by_one.slides().probabilities)
    np.testing.assert_array_equal(at_once.patients().probabilities, one_by_one.patients().probabilities)


def test_certain_bags_stay_finite() -> None:
    logits = torch.tensor([[1e4, 0.0, 0.0], [0.0, 1e4, 0.0], [1e4, 0.0, 0.0]])
    slides = voted(logits, [0, 0, 1], ["A", "A"], [0, 0])
    for predictions in (slides.slides(), slides.patients()):
        assert np.isfinite(predictions.probabilities).all()
        np.testing.assert_allclose(predictions.probabilities.sum(axis=1), 1)
    np.testing.assert_allclose(slides.slides().probabilities[0], [0.5, 0.5, 0], atol=1e-12)


def test_bf16_logits_vote_like_their_values() -> None:
    logits = torch.tensor([[1.5, -0.25]])
    votes = voted(logits.bfloat16(), [0], ["A"], [0]).slides()
    np.testing.assert_allclose(votes.probabilities[0], softmax(logits[0].double().numpy()), rtol=1e-12)


def test_unlabelled_units_are_predicted_but_not_scored() -> None:
    predictions = voted(torch.eye(3)[:, :2] * 3, [0, 1, 2], ["A", "B", "C"], [None, 1, None]).slides()
    assert predictions.labels.tolist() == [-1, 1, -1]
    known = predictions.labelled
    assert isinstance(known, Predictions)
    assert known.names == ("s1",)
    np.testing.assert_array_equal(known.probabilities, predictions.probabilities[1:2])


def test_a_patient_is_labelled_by_any_labelled_slide() -> None:
    patients = voted(torch.zeros(3, 2), [0, 1, 2], ["A", "A", "B"], [None, 0, None]).patients()
    assert patients.labels.tolist() == [0, -1]


def test_discarded_slides_have_no_prediction_and_leave_the_others_as_they_were() -> None:
    logits = torch.randn(6, 3, generator=torch.Generator().manual_seed(3))
    slides, patients, labels = [2, 0, 2, 1, 0, 3], ["A", "B", "A", "C"], [1, 0, 1, 2]
    votes = voted(logits, slides, patients, labels)
    votes.discard({0, 1})
    rest = voted(logits[[0, 2, 5]], [2, 2, 3], patients, labels)
    assert votes.slides().names == ("s2", "s3")
    assert votes.patients().names == ("A", "C")  # of A, one slide is left
    np.testing.assert_array_equal(votes.slides().probabilities, rest.slides().probabilities)
    np.testing.assert_array_equal(votes.patients().probabilities, rest.patients().probabilities)


def test_a_slide_without_votes_may_be_discarded() -> None:
    votes = voted(torch.eye(2), [0, 2], ["A", "B", "C"], [0, 1, 1])
    votes.discard([1, 1])
    assert votes.slides().names == ("s0", "s2")


def test_a_temperature_flattens_slides_and_patients_alike() -> None:
    logits = torch.randn(7, 3, generator=torch.Generator().manual_seed(3))
    cohort, slides = entries(["B", "B", "A"], [0, 0, 2]), [0, 1, 1, 1, 1, 1, 2]
    plain, cooled = Votes(cohort), Votes(cohort, temperature=2.5)
    for votes in (plain, cooled):
        votes.add(torch.tensor(slides), logits)
    for one, other in ((plain.slides(), cooled.slides()), (plain.patients(), cooled.patients())):
        powers = one.probabilities ** (1 / 2.5)
        np.testing.assert_allclose(other.probabilities, powers / powers.sum(axis=1, keepdims=True), rtol=1e-9)


@pytest.mark.parametrize("best", ["both", "image", "record"])
def test_a_head_reads_what_fits_validation_best(best: str) -> None:
    labels = np.arange(40) % 2
    head = PersAMHead(2, [2], 4, width=8, projection_hidden=None, heads=2, feedforward=8, readings=True)
    rng = np.random.default_rng(0)
    logits = {name: torch.tensor(rng.standard_normal((40, 2)) + 2.0 * (name == best) * np.eye(2)[labels])
              for name in head.readings}  # fmt: skip
    dataset = SimpleNamespace(entries=entries([f"P{i}" for i in range(40)], labels.tolist()), skipped=[])
    metric = VoteTemperature(dataset, head=head)  # type: ignore[arg-type]
    for name, of_reading in logits.items():
        metric.update((torch.arange(40), of_reading), name)
    assert metric.compute() == pytest.approx(fit_temperature(softmax(logits[best].numpy()), labels))
    assert head.reading is not None
    assert head.readings[int(head.reading)] == best
    metric.reset()
    assert head.readings[int(head.reading)] == "both"
    assert VoteTemperature(dataset, held_out=False, head=head).head is None  # type: ignore[arg-type]
