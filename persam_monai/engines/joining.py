# SPDX-License-Identifier: Apache-2.0
"""A trained model meets an extractor, or features, and they must be those that it was trained on."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from torch import nn

from persam_monai.data import BagDataset, FeatureInstances, PatchSettings
from persam_monai.data.features.agreement import PIXELS
from persam_monai.data.features.info import short
from persam_monai.engines.extraction.targets import made_with
from persam_monai.errors import UserError, raise_together
from persam_monai.model import ModelCard, read_extractor
from persam_monai.networks import Head, PersAM, brings_weights, load_extractor_weights, state_sha256
from persam_monai.settings import is_null

logger = logging.getLogger(__name__)


def join_extractor(
    network: nn.Module, card: ModelCard, patches: PatchSettings, extractor_weights: str | None = None
) -> None:
    """Give a network that reads pixels the extractor that its head was trained behind.

    A model that was trained end to end has its extractor in its own file. One that was trained on features has none:
    the weights that made those features are loaded.

    Args:
        network: whose head has been loaded; without an extractor nothing is done.
        card: of the model.
        patches: what a patch is.
        extractor_weights: see :func:`persam_monai.networks.load_extractor_weights`; not read if the model has its own.

    Raises:
        UserError: if they are not those that made the features, or nobody knows.
    """
    if card.features is None or not isinstance(network, PersAM) or not network.head.reads_patches:
        if not is_null(extractor_weights):
            logger.warning("extractor_weights has no effect: the model has its own extractor, or needs none here.")
        return
    wanted, backbone = card.features, network.extractor.backbone
    ours = (
        "Name the file of those weights by --extractor_weights (extracting with random weights keeps them as "
        "extractor.pt beside the features), "
    )
    place = (
        f"{ours if wanted.get('weights') else 'Put the block of that extractor behind the config, '}or extract the "
        "slides' features as those of the training were, and put bundle/configs/frozen.json behind the config."
    )
    if is_null(extractor_weights) and not brings_weights(backbone):
        raise UserError(
            f"{card.path} was trained on features of {said(wanted)}, and does not hold that extractor's weights. "
            f"{place}"
        )
    load_extractor_weights(network.extractor, extractor_weights)
    found = made_with(network.extractor, patches, "", 0).to_dict()
    raise_together(
        f"The extractor is not the one that made the features {card.path} was trained on. {place}",
        _differences(found, wanted, "this one has"),
    )
    if wanted.get("weights") is None:
        logger.warning("The features that the model was trained on do not say which weights made them.")


def check_features(card: ModelCard, dataset: BagDataset) -> None:
    """Make sure that features are of the extractor that the model knows.

    Args:
        card: of the model.
        dataset: the bags; pixels need no check.

    Raises:
        UserError: if they are not.
    """
    found = dataset.source.made_of(dataset.entries)
    if found is None:
        return
    wanted = card.features or _own_extractor(card)
    if wanted is None:
        return  # a head alone, such as a converted one: nobody knows
    if not {"extractor", "weights"} & _known(found).keys() & _known(wanted).keys():
        logger.warning(
            "Nobody can tell whether these features (of %s) are of the extractor that the model was trained with (%s).",
            said(found),
            said(wanted) if card.features else "its own",
        )
    trained = (
        f"trained end to end, with its own: extract them with --extractor_weights {card.path}"
        if card.features is None
        else f"trained on features of: extract them with {said(wanted)}"
    )
    raise_together(
        f"The features are not those of the extractor that {card.path} was {trained}",
        _differences(found, wanted, "these features have"),
    )


def check_feature_dim(network: nn.Module, dataset: BagDataset) -> None:
    """Make sure that features are as many as the network's head takes.

    Args:
        network: reads the bags.
        dataset: the bags, prepared; pixels need no check.

    Raises:
        UserError: if they are not.
    """
    head = getattr(network, "head", None)
    if not isinstance(head, Head):
        return
    found = {one.dim for one in dataset.instances if isinstance(one, FeatureInstances)} - {head.feature_dim}
    if found and head.reads_patches:
        raise UserError(
            f"The files of features have {found.pop()} features for each patch, the network takes {head.feature_dim}. "
            "Name the folder with the features that it was made for as --features_dir; in a training, leave "
            "--feature_dim to the files."
        )


def _own_extractor(card: ModelCard) -> dict[str, Any] | None:
    """What the extractor that a model holds would write down of itself; ``None`` if it holds none."""
    state = read_extractor(card)
    backbone = {name.removeprefix("backbone."): t for name, t in state.items() if name.startswith("backbone.")}
    if not backbone:
        return None
    settings = {name: state[name].tolist() for name in PIXELS if name in state}
    return {"weights": state_sha256(backbone), "settings": settings}


def said(made: Mapping[str, Any]) -> str:
    """An extractor in words."""
    weights = made.get("weights")
    return (made.get("extractor") or "an extractor that is not named") + (
        f" (weights {short(weights)})" if weights else ""
    )


def _differences(found: Mapping[str, Any], wanted: Mapping[str, Any], these: str) -> list[str]:
    """What both sides know and do not agree on."""
    here, there = _known(found), _known(wanted)
    return [
        f"{name}: the model has {short(there[name])}, {these} {short(here[name])}"
        for name in there
        if name in here and there[name] != here[name]
    ]


def _known(made: Mapping[str, Any]) -> dict[str, Any]:
    """What of the making of features decides whether an extractor is the same, as far as it is said."""
    settings = made.get("settings") or {}
    known = {name: settings[name] for name in PIXELS if name in settings}  # no input size means: patches as they are
    return {name: made[name] for name in ("extractor", "weights") if made.get(name) is not None} | known
