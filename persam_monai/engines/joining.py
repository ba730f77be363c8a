# SPDX-License-Identifier: Apache-2.0
"""A trained model meets an extractor, or features, and they must be those that it was trained on."""

from __future__ import annotations

import logging
from typing import Any

from torch import nn

from persam_monai.data import BagDataset, FeatureInstances, Made, PatchSettings
from persam_monai.data.feature_made import EXTRACTOR, PIXELS, differences, short
from persam_monai.engines.extraction import made_with
from persam_monai.errors import UserError, raise_together
from persam_monai.model import ModelCard, read_extractor
from persam_monai.networks import Head, PersAM, load_extractor_weights
from persam_monai.networks.weights import brings_weights, state_sha256

logger = logging.getLogger(__name__)


def join_extractor(
    network: nn.Module, card: ModelCard, patches: PatchSettings, extractor_weights: str | None = None
) -> None:
    """Give a network that reads pixels the extractor that its head was trained behind.

    A model that was trained end to end has its extractor in its own file. One that was trained on features has none:
    the weights that made those features are loaded.

    Raises:
        UserError: if they are not those that made the features, or nobody knows.
    """
    if card.features is None or not isinstance(network, PersAM) or not network.head.reads_patches:
        if extractor_weights is not None:
            logger.warning("extractor_weights has no effect: the model has its own extractor, or needs none here.")
        return
    expected = Made.from_dict(card.features)
    cure = (
        "Name the file of those weights by --extractor_weights (extracting with random weights keeps them as "
        "extractor.pt beside the features) and put the block of that extractor behind the config; or extract the "
        "slides' features as those of the training were, and name their folder with --features_dir."
    )
    if extractor_weights is None and not brings_weights(network.extractor.backbone):
        raise UserError(
            f"{card.path} was trained on features of {_described(expected)}, and does not hold that extractor's "
            f"weights. {cure}"
        )
    load_extractor_weights(network.extractor, extractor_weights)
    raise_together(
        f"The extractor is not the one that made the features {card.path} was trained on. {cure}",
        _problems(made_with(network.extractor, patches, "", 0), expected),
    )
    if expected.weights is None:
        logger.warning("The features that the model was trained on do not say which weights made them.")


def check_features(card: ModelCard, dataset: BagDataset) -> None:
    """Make sure that features are of the extractor that the model knows."""
    values = dataset.source.made_of(dataset.entries)
    if values is None:
        return
    actual = Made.from_dict(values)
    expected = _own_extractor(card) if card.features is None else Made.from_dict(card.features)
    if expected is None:
        return  # a head alone, such as a converted one: nobody knows
    if not {"extractor", "weights"} & actual.facts().keys() & expected.facts().keys():
        logger.warning(
            "Nobody can tell whether these features (of %s) are of the extractor that the model was trained with (%s).",
            _described(actual),
            _described(expected) if card.features else "its own",
        )
    trained = (
        f"trained end to end, with its own: extract them with --extractor_weights {card.path}"
        if card.features is None
        else f"trained on features of: extract them with {_described(expected)}"
    )
    raise_together(
        f"The features are not those of the extractor that {card.path} was {trained}", _problems(actual, expected)
    )


def check_feature_dim(network: nn.Module, dataset: BagDataset) -> None:
    """Make sure that features are as many as the network's head takes."""
    head = getattr(network, "head", None)
    if not isinstance(head, Head) or not head.reads_patches:
        return
    others = {item.dim for item in dataset.instances if isinstance(item, FeatureInstances)} - {head.feature_dim}
    if others:
        raise UserError(
            f"The files of features have {others.pop()} features for each patch, the network takes {head.feature_dim}. "
            "Name the folder with the features that it was made for as --features_dir; in a training, leave "
            "--feature_dim to the files."
        )


def _own_extractor(card: ModelCard) -> Made | None:
    """What the extractor that a model holds would write down of itself; ``None`` if it holds none."""
    state = read_extractor(card)
    backbone = {name.removeprefix("backbone."): t for name, t in state.items() if name.startswith("backbone.")}
    if not backbone:
        return None
    settings: dict[str, Any] = {name: state[name].tolist() for name in PIXELS if name in state}
    return Made(weights=state_sha256(backbone), settings=settings)


def _described(made: Made) -> str:
    """An extractor in words."""
    weights = f" (weights {short(made.weights)})" if made.weights else ""
    return f"{made.extractor or 'an extractor that is not named'}{weights}"


def _problems(actual: Made, expected: Made) -> list[str]:
    """What both sides know of the extractor and do not agree on."""
    pairs = differences(actual.facts(), expected.facts(), EXTRACTOR)
    return [f"{name}: {short(now)}, but the model has {short(then)}" for name, (now, then) in pairs.items()]
