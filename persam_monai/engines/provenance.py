# SPDX-License-Identifier: Apache-2.0
"""What a training's result depends on, and what its model says of itself."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from persam_monai.clinical import RecordStatistics
from persam_monai.cohort import Cohort
from persam_monai.data import Source
from persam_monai.networks import PersAM, PersAMOnFeatures, describe_head, resolve_precision


def provenance(
    settings: Mapping[str, Any], source: Source, cohort: Cohort, assignment: Mapping[str, int]
) -> dict[str, Any]:
    """What a training's result depends on.

    Args:
        settings: see :func:`persam_monai.commandline.running_settings`.
        source: where the bags come from.
        cohort: all patients.
        assignment: every patient's fold.

    Returns:
        JSON-able: the settings, with the precision that is used; what made the features (``features``); and the SHA-256
        of every patient's fold (``fold_assignment``) and of the schema (``clinical_schema``).
    """
    return {
        **settings,
        "precision": resolve_precision(settings["precision"], settings["device"]),
        "features": source.made_of(cohort.entries),
        "fold_assignment": _digest(sorted(assignment.items())),
        "clinical_schema": _digest(cohort.schema.to_dict()),  # the order of classes, groups and levels counts
    }


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
