# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import StandardScaler

from persam_monai.clinical import ClinicalSchema, RecordStatistics, fit_statistics
from persam_monai.errors import UserError
from persam_monai.networks.clinical_encoder import ClinicalEncoder

NAN = float("nan")
SCHEMA = ClinicalSchema.from_dict(
    {
        "classes": ["a", "b"],
        "groups": {
            "interview": {
                "haemoglobin": {"kind": "numeric", "unit": "g/dL"},
                "sex": {"kind": "binary", "levels": ["f", "m"]},
                "site": {"kind": "categorical", "levels": ["neck", "axilla", "groin"], "other": True},
                "stage": {"kind": "ordinal", "levels": ["I", "II", "III", "IV"]},
            },
            "blood": {
                "ldh": {"kind": "numeric", "unit": "U/L", "transform": "log"},
                "crp": {"kind": "numeric"},
                "gene": {"kind": "binary"},
            },
        },
    }
)
CELLS: list[dict[str, object]] = [
    {"haemoglobin": 7.93, "sex": "f", "site": "neck", "stage": "I", "ldh": 133.7, "crp": 5},
    {"haemoglobin": 17.21, "sex": "f", "site": "axilla", "stage": "II", "ldh": 1777, "crp": 5},
    {"haemoglobin": 12.4, "site": "neck", "stage": "I", "ldh": 250},
    {"haemoglobin": None, "sex": "f", "site": "neck", "stage": "I", "ldh": 300},
]
RECORDS = np.stack([SCHEMA.encode(cells, "here") for cells in CELLS])
STATISTICS = RecordStatistics.fit(SCHEMA, RECORDS)


def test_statistics_are_those_of_scikit_learn_and_of_the_network() -> None:
    rng = np.random.default_rng(3)
    records = rng.normal(100, 30, (41, 6)).astype(np.float32)
    records[rng.random(records.shape) < 0.3] = NAN
    records[:, 4] = 0.1  # constant, and not a sum of powers of two
    median, mean, scale = fit_statistics(records)
    imputer, scaler = SimpleImputer(strategy="median"), StandardScaler()
    scaler.fit(imputer.fit_transform(records.astype(np.float64)))
    np.testing.assert_allclose(median, imputer.statistics_, rtol=1e-12)
    np.testing.assert_allclose(mean, scaler.mean_, rtol=1e-12)
    np.testing.assert_allclose(scale[:4], scaler.scale_[:4], rtol=1e-12)
    assert (mean[4], scale[4]) == (np.float32(0.1), 1)
    encoder = ClinicalEncoder([6], 8)
    encoder.fit(torch.from_numpy(records))
    for fitted, buffer in zip((median, mean, scale), (encoder.median, encoder.mean, encoder.scale), strict=True):
        assert fitted.dtype == np.float64
        np.testing.assert_allclose(fitted.astype(np.float32), buffer.numpy(), rtol=2e-7)


def test_a_variable_that_nobody_has_is_left_as_it_is() -> None:
    assert [part.tolist() for part in fit_statistics(np.full((3, 1), NAN))] == [[0.0], [0.0], [1.0]]


@pytest.mark.parametrize("records", [np.zeros(3), np.zeros((0, 2)), np.array([[1.0, np.inf]])])
def test_what_are_no_records_is_refused(records: np.ndarray) -> None:
    with pytest.raises(ValueError, match="records must be"):
        fit_statistics(records)


def test_records_of_another_schema_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\[P, 10\]"):
        RecordStatistics.fit(SCHEMA, RECORDS[:, :4])


def test_ranges_are_rounded_outward_so_that_no_patients_value_is_kept() -> None:
    assert STATISTICS.patients == 4
    found = {name: (each.known, each.range, each.levels) for name, each in STATISTICS.variables.items()}
    assert found == {
        "haemoglobin": (3, (7.9, 18), None),
        "sex": (3, None, ("f",)),
        "site": (4, None, ("neck", "axilla")),
        "stage": (4, (0, 1), None),
        "ldh": (4, (130, 1800), None),
        "crp": (2, (5, 5), None),
        "gene": (0, None, ()),
    }
    negative = RecordStatistics.fit(SCHEMA, np.where(np.arange(10) == 0, -RECORDS, RECORDS))
    assert negative.variables["haemoglobin"].range == (-18, -7.9)


def test_statistics_survive_json_and_hold_those_of_the_network() -> None:
    text = json.dumps(STATISTICS.to_dict(), allow_nan=False)
    again = RecordStatistics.from_dict(SCHEMA, json.loads(text), "model.json")
    assert again == STATISTICS
    for part, fitted in zip(again.fitted, fit_statistics(RECORDS), strict=True):
        np.testing.assert_array_equal(part, fitted)


@pytest.mark.parametrize(
    ("cells", "warnings"),
    [
        (CELLS[0], []),
        ({"haemoglobin": 21, "sex": "f"}, []),  # 18 and nearly one standard deviation, 3.28, beyond it
        (
            {"haemoglobin": 128},
            ["haemoglobin: 128 g/dL is far outside the training range 7.9 to 18 g/dL; is the unit right?"],
        ),
        (
            {"haemoglobin": 4},
            ["haemoglobin: 4 g/dL is far outside the training range 7.9 to 18 g/dL; is the unit right?"],
        ),
        ({"sex": "m", "site": "groin"}, ['sex: no training patient had "m"', 'site: no training patient had "groin"']),
        ({"site": "elbow"}, ['site: no training patient had "other"']),
        ({"stage": "III"}, ['stage: "III" is far outside the training range "I" to "II"']),
        ({"ldh": "4000"}, []),
        ({"ldh": "5000.5"}, ["ldh: 5000.5 U/L is far outside the training range 130 to 1800 U/L; is the unit right?"]),
        ({"ldh": "1.5"}, ["ldh: 1.5 U/L is far outside the training range 130 to 1800 U/L; is the unit right?"]),
        ({"crp": 5.000001}, []),
        ({"crp": 5.001}, ["crp: 5.001 differs from 5, the only value in training; is the unit right?"]),
        ({"gene": "no", "sex": "f"}, ["gene: no training patient had a value"]),
        ({}, ["no clinical value is known; predicted from the slide alone"]),
    ],
)
def test_what_training_did_not_prepare_for_is_told(cells: dict[str, object], warnings: list[str]) -> None:
    assert STATISTICS.warnings(SCHEMA, SCHEMA.encode(cells, "here")) == warnings


def test_the_border_is_one_standard_deviation_beyond_the_range() -> None:
    highest, scale = np.log(1800), STATISTICS.variables["ldh"].scale[0]
    np.testing.assert_allclose(scale, np.std(np.log([133.7, 1777, 250, 300])), rtol=1e-6)
    for factor, told in ((0.99, False), (1.01, True)):
        value = float(np.exp(highest + factor * scale))
        assert bool(STATISTICS.warnings(SCHEMA, SCHEMA.encode({"ldh": value}, "here"))) is told


DAMAGE: list[Callable[[dict[str, Any]], object]] = [
    lambda data: data.clear(),
    lambda data: data.update(patients=0),
    lambda data: data["variables"].pop("ldh"),
    lambda data: data["variables"].update(more=data["variables"]["ldh"]),
    lambda data: data["variables"].update(ldh=[]),
    lambda data: data["variables"]["ldh"].update(known=-1),
    lambda data: data["variables"]["ldh"].update(scale=[0]),
    lambda data: data["variables"]["site"].update(mean=[0]),
    lambda data: data["variables"]["ldh"].update(median=["x"]),
    lambda data: data["variables"]["ldh"].update(range=[9]),
]


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_statistics_are_refused(damage: Callable[[dict[str, Any]], object]) -> None:
    data = json.loads(json.dumps(STATISTICS.to_dict()))
    damage(data)
    with pytest.raises(UserError, match=r"model\.json.*[Pp]ut back the file"):
        RecordStatistics.from_dict(SCHEMA, data, "model.json")


def test_rounding_does_not_hide_what_is_far_outside() -> None:
    schema = ClinicalSchema.from_dict({"classes": ["A", "B"], "groups": {"g": {"ph": {"kind": "numeric"}}}})
    training = np.array([[7.38], [7.40], [7.41], [7.42], [7.39]], np.float32)
    statistics = RecordStatistics.fit(schema, training)
    deviation = float(training.astype(np.float64).std())
    assert statistics.warnings(schema, np.array([7.42 + 0.9 * deviation], np.float32)) == []
    (warning,) = statistics.warnings(schema, np.array([7.42 + 1.6 * deviation], np.float32))
    assert "far outside" in warning
