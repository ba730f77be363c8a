# SPDX-License-Identifier: Apache-2.0
"""What a training's result depends on, and what its model says of itself."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from persam_monai.clinical import ClinicalSchema, RecordStatistics
from persam_monai.cohort import Cohort
from persam_monai.data import Source
from persam_monai.networks import PersAM, PersAMOnFeatures, describe_head

# Of the config, with settings of their own.
BLOCKS = ("source", "extractor", "patch_extractor", "head", "loss", "optimizer", "lr_scheduler")


def provenance(
    settings: Mapping[str, Any], assignment: Mapping[str, int], schema: ClinicalSchema, config: Mapping[str, Any]
) -> dict[str, Any]:
    """What a training's result depends on.

    Args:
        settings: what the user set, by name.
        assignment: every patient's fold.
        schema: what the records and labels mean.
        config: the config that is run, see :func:`persam_monai.commandline.running_config`.

    Returns:
        JSON-able: the settings, the blocks of the config that have settings of their own, and the
        SHA-256 of every patient's fold (``fold_assignment``) and of the schema (``clinical_schema``).
    """
    blocks = {name: config[name] for name in BLOCKS if name in config}
    hashes = {
        "fold_assignment": _digest(sorted(assignment.items())),
        "clinical_schema": _digest(schema.to_dict()),  # the order of classes, groups and levels counts
    }
    return {**settings, **blocks, **hashes}


def _digest(content: object) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def describe(
    network: PersAM | PersAMOnFeatures, train: Cohort, source: Source, bag_size: int, provenance: Mapping[str, Any]
) -> dict[str, Any]:
    """What ``model.json`` says of a network that is being trained.

    Args:
        network: has a ``head`` with ``settings``.
        train: the training part of the cohort.
        source: where the bags come from.
        bag_size: patches in a bag.
        provenance: see :func:`provenance`.
    """
    labels = list(train.patient_labels.values())
    slides = dict(zip(train.classes, train.class_counts(), strict=True))
    counts = {name: {"patients": labels.count(i), "slides": slides[name]} for i, name in enumerate(train.classes)}
    return {
        "schema": train.schema.to_dict(),
        "statistics": RecordStatistics.fit(train.schema, train.clinical_matrix()).to_dict(),
        "trained_on": {"patients": len(labels), "slides": len(train), "classes": counts},
        "head": describe_head(network.head),
        "patch_size": source.patches.size,
        "mpp": source.patches.mpp,
        "features": source.made_of(train.entries),
        "bag_size": bag_size,
        "settings": dict(provenance),
    }
