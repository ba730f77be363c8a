# SPDX-License-Identifier: Apache-2.0
"""What personalisation says, beside what the head itself says."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import h5py
import imagecodecs
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score

from persam_monai.cohort import Cohort
from persam_monai.data import BagDataset, FeatureFiles, PartitionBags
from persam_monai.metrics import Votes
from persam_monai.networks import PersAMHead, PersAMOnFeatures
from persam_monai.study.personalisation import measure, summarise
from persam_monai.synthetic import make_cohort

SIDE = 128  # level-0 pixels of a patch


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve synthetic patients; features are shares of the kinds of tissue, and noise."""
    folder = tmp_path_factory.mktemp("personal") / "cohort"
    make_cohort(folder, patients=12, seed=1, size=1024, workers=1)
    rng = np.random.default_rng(0)
    (folder / "features").mkdir()
    for file in sorted((folder / "truth").glob("*.png")):
        truth = imagecodecs.png_decode(file.read_bytes())
        places = [(x, y) for x in range(0, 1024, SIDE) for y in range(0, 1024, SIDE)]
        parts = [truth[y // 16 : (y + SIDE) // 16, x // 16 : (x + SIDE) // 16] for x, y in places]
        shares = np.stack([np.bincount(part.ravel(), minlength=5) / part.size for part in parts])
        features = np.concatenate([shares, rng.standard_normal((len(places), 3))], axis=1)
        with h5py.File(folder / "features" / f"{file.stem}.h5", "w") as h5:
            h5["features"] = features.astype(np.float32)
            h5["coords"] = np.array(places)
            h5["coords"].attrs["patch_size_level0"] = SIDE
    return folder


def bags(folder: Path, bag_size: int = 1000) -> BagDataset:
    cohort = Cohort.load_dir(folder)
    source = FeatureFiles(folder / "features", patch_size=SIDE, mpp=0.25)
    return BagDataset(cohort, PartitionBags(bag_size, "all", 2), source).prepare()


def network(dataset: BagDataset, **arguments: Any) -> PersAMOnFeatures:
    torch.manual_seed(0)
    schema = dataset.data.schema
    head = PersAMHead(
        3,
        schema.group_sizes,
        8,
        16,
        None,
        heads=2,
        feedforward=16,
        clinical_variables=schema.variable_sizes,
        **arguments,
    )
    head.fit_records(torch.from_numpy(dataset.data.clinical_matrix()))
    with torch.no_grad():
        for parameter in head.aggregator.parameters():
            parameter.mul_(4)  # attention that differs between patches
    return PersAMOnFeatures(head).eval()


def test_a_head_that_never_sees_the_record_is_moved_by_none_of_its_variables(folder: Path) -> None:
    dataset = bags(folder)
    blind = network(dataset, layers=0, exploratory=False, relevance=False)
    measured = measure(blind, dataset)
    assert (measured.filter(like="attention:").to_numpy() == 0).all()
    assert np.abs(measured.filter(like="prediction:").to_numpy()).max() < 1e-6
    seeing = measure(network(dataset), dataset)
    assert (seeing.filter(like="attention:").to_numpy() > 0).all()
    assert summarise([measured])["variables"]["age"]["p"] > 0.05


def test_the_whole_probability_is_that_of_the_evaluation_and_deletion_that_of_the_rest(folder: Path) -> None:
    dataset = bags(folder)
    one = network(dataset)
    measured = measure(one, dataset)
    votes = Votes(dataset.entries)
    for key in dataset.keys(0):
        item = dataset[key]
        features, record = torch.from_numpy(item["image"]).T[None], torch.from_numpy(item["clinical"])[None]
        votes.add(torch.tensor([key.slide]), one(features, record))
    patients = votes.patients()
    single = [name for name in patients.names if [e.patient_id for e in dataset.entries].count(name) == 1]
    whole = dict(zip(patients.names, patients.probabilities.max(axis=1), strict=True))
    assert measured["whole"][single].tolist() == pytest.approx([whole[name] for name in single], abs=1e-6)

    slide = [entry.patient_id for entry in dataset.entries].index(single[0])
    item = dataset[dataset.keys(0)[2 * slide]]  # a partition is one bag of all patches
    features, record = torch.from_numpy(item["image"]).T[None], torch.from_numpy(item["clinical"])[None]
    attention = one.attend(features, record)
    kept = attention.pooled[0].argsort()[: features.shape[2] - round(0.2 * features.shape[2])]
    rest = one.attend(features[:, :, kept], record).logits.softmax(dim=1)[0, int(attention.logits.argmax())]
    assert measured["highest:0.2"][single[0]] == pytest.approx(rest.item(), abs=1e-5)


def test_areas_are_those_of_the_heads_own_attention_over_what_was_painted(folder: Path) -> None:
    dataset = bags(folder)
    one = network(dataset)
    measured = measure(one, dataset, folder / "truth")
    truth = {row["slide"]: row for row in csv.DictReader((folder / "truth" / "truth.csv").open())}
    classes = list(dataset.data.classes)
    compared = 0
    for slide, entry in enumerate(dataset.entries):
        row = truth[entry.slide]
        if row["decided_by"] != "ambiguous" or sum(e.patient_id == entry.patient_id for e in dataset.entries) > 1:
            continue
        item = dataset[dataset.keys(0)[2 * slide]]
        record = torch.from_numpy(item["clinical"])[None]
        attention = one.attend(torch.from_numpy(item["image"]).T[None], record)
        kinds = item["image"][:, :5].argmax(axis=1) - 2  # the shares are among the features
        kinds[item["image"][:, :5].max(axis=1) < 0.5] = -1
        (other,) = (classes.index(kind) for kind in row["kinds"].split("+") if kind != row["deciding_kind"])
        assert entry.label is not None
        chosen = np.isin(kinds, [entry.label, other])
        deciding = kinds[chosen] == entry.label
        if 0 < deciding.sum() < len(deciding):
            area = roc_auc_score(deciding, attention.pooled[0].detach().numpy()[chosen])
            assert measured["own"][entry.patient_id] == pytest.approx(area, abs=1e-6)
            own_map = attention.explanatory[0, entry.label].detach().numpy()[chosen]
            assert measured["class_map"][entry.patient_id] == pytest.approx(roc_auc_score(deciding, own_map), abs=1e-6)
            compared += 1
    assert compared >= 3
    assert summarise([measured])["truth"]["patients"] >= compared


def test_features_without_positions_are_measured_as_well(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "features").mkdir()
    for file in (folder / "features").glob("*.h5"):
        with h5py.File(file) as h5:
            torch.save(torch.from_numpy(h5["features"][:]), tmp_path / "features" / f"{file.stem}.pt")
    source = FeatureFiles(tmp_path / "features", patch_size=SIDE, mpp=0.25)
    plain = BagDataset(Cohort.load_dir(folder), PartitionBags(20, "all", 2), source).prepare()
    placed = bags(folder, 20)
    one = network(placed)
    pd.testing.assert_frame_equal(measure(one, plain), measure(one, placed))
