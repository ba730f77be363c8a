# SPDX-License-Identifier: Apache-2.0
"""A trained model on disk: ``model.pt`` holds tensors alone, ``model.json`` everything else that it needs."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from persam_monai import __version__
from persam_monai.clinical import NOTHING_KNOWN, ClinicalSchema, RecordStatistics
from persam_monai.errors import UserError, raise_together
from persam_monai.files import read_tensors, replacing, sha256, write_json

if TYPE_CHECKING:  # who only asks what a model is should not wait for PyTorch
    from torch import nn

FORMAT = 1


@dataclass(frozen=True)
class ModelCard:
    """What ``model.json`` says.

    Attributes:
        path: the ``model.pt`` beside it.
        schema: classes and clinical variables.
        head: the network's head, as :func:`persam_monai.networks.build_head` takes it.
        patch_size: side of a patch in pixels.
        mpp: µm per pixel of a patch.
        bag_size: patches in a bag.
        settings: what the training was started with; empty if it was not ours.
        statistics: of the records it was trained on; ``None`` if nobody knows.
        temperature: that the logits are divided by, fitted on validation; 1 leaves them as they are.
        reading: what it predicts from: ``both`` image and record, ``image`` or ``record``, as validation has chosen;
            ``None`` if there was nothing to choose.
        features: what made the features it was trained on (see :class:`persam_monai.data.Made`); ``None`` if it was
            trained on pixels and holds its extractor.
        trained_on: numbers of ``patients`` and ``slides`` and, under ``classes``, both by class; empty if nobody knows.
    """

    path: Path
    schema: ClinicalSchema
    head: dict[str, Any]
    patch_size: int
    mpp: float
    bag_size: int
    settings: dict[str, Any]
    statistics: RecordStatistics | None = None
    trained_on: dict[str, Any] = field(default_factory=dict)
    features: dict[str, Any] | None = None
    temperature: float = 1.0
    reading: str | None = None

    def warnings(self, record: np.ndarray) -> list[str]:
        """What is to be said of a record that the model is asked about.

        Returns:
            A sentence for each value unlike those of the training, or one that says that no value is known.
        """
        if self.statistics is None:
            return [NOTHING_KNOWN] if np.isnan(record).all() else []
        return self.statistics.warnings(self.schema, record)

    def trained_with(self, name: str) -> Any:
        """A setting of the training that made the model."""
        if name not in self.settings:
            raise UserError(
                f"{self.path.with_suffix('.json')} does not say with what {name} the model was trained (a converted "
                "model cannot), so nobody knows which patients it has seen. Predict patients that it has not seen by "
                "inference."
            )
        return self.settings[name]


def save_model(network: nn.Module, path: str | os.PathLike[str], card: Mapping[str, Any]) -> None:
    """Write the weights and, beside them, ``model.json`` with their SHA-256.

    Args:
        network: its ``state_dict`` is written.
        path: of the weights; the description has the same name with ``.json``.
        card: JSON-able; what :func:`load_card` reads back.
    """
    import torch

    with replacing(path) as partial:
        torch.save({name: tensor.detach().cpu() for name, tensor in network.state_dict().items()}, partial)
        digest = sha256(partial)
        content = {"format": FORMAT, "persam_monai": __version__, "sha256": digest, **card}
        write_json(Path(path).with_suffix(".json"), content)


def load_card(path: str | os.PathLike[str]) -> ModelCard:
    """Read ``model.json`` beside the weights and make sure that they belong together.

    Args:
        path: of the weights, ``model.pt``.

    Raises:
        UserError: if a file is missing or damaged, of another format, or the two do not match.
    """
    weights, description = Path(path), Path(path).with_suffix(".json")
    missing = [str(file) for file in (weights, description) if not os.path.isfile(file)]
    raise_together(
        "There is no trained model here (a model is two files, written by training; --model or --output_dir names "
        "the place)",
        [f"{file} is missing" for file in missing],
    )
    try:
        content = json.loads(description.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise UserError(f"{description} has format {content['format']}; this version reads format {FORMAT}.")
        card = ModelCard(
            path=weights,
            schema=ClinicalSchema.from_dict(content["schema"], str(description)),
            head=content["head"],
            patch_size=content["patch_size"],
            mpp=content["mpp"],
            bag_size=content["bag_size"],
            settings=content["settings"],
            trained_on=content.get("trained_on", {}),
            features=content.get("features"),
            temperature=float(content.get("temperature", 1.0)),
            reading=content.get("reading"),
        )
        if content.get("statistics") is not None:
            statistics = RecordStatistics.from_dict(card.schema, content["statistics"], str(description))
            card = replace(card, statistics=statistics)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{description} is not a description of a model ({error!r}). Copy model.pt and model.json anew from where "
            "they were trained."
        ) from error
    if content.get("sha256") != sha256(weights):
        raise UserError(
            f"{weights} and {description} do not belong together: the SHA-256 of the weights differs from the one "
            "written down. Copy both files anew from the same training."
        )
    return card


def load_weights(network: nn.Module, card: ModelCard) -> nn.Module:
    """Load the card's weights, strictly, and return the network.

    Where one of the two has an extractor and the other has none, the rest is loaded: features are extracted elsewhere,
    or the extractor is loaded from elsewhere.

    Raises:
        UserError: lists the tensors that are missing, unexpected or of another shape.
    """
    from persam_monai.networks import Head, describe_head
    from persam_monai.networks.weights import misfits

    state = read_tensors(card.path, "Copy it anew.")
    head = getattr(network, "head", network)
    raise_together(
        f"{card.path} was trained with another head than the one that is asked to use it",
        [
            f"{key} was {card.head[key]!r} and is now {value!r}"
            for key, value in (describe_head(head) if isinstance(head, Head) else {}).items()
            if key in card.head and card.head[key] != value
        ],
    )
    own = network.state_dict()
    needed, held = any(map(_is_extractors, own)), any(map(_is_extractors, state))
    if needed and not held and card.features is None:
        raise UserError(
            f"{card.path} holds no extractor and does not say which one its features come from: it predicts features "
            "alone. Predict from features (--features_dir), or convert it anew with --extractor_weights."
        )
    if needed != held:
        own, state = (
            {name: tensor for name, tensor in tensors.items() if not _is_extractors(name)} for tensors in (own, state)
        )
    raise_together(
        f"{card.path} does not fit this network (was it trained with another --extractor or --head?)",
        misfits(own, state),
        shown=5,
    )
    network.load_state_dict(state, strict=False)  # what may be missing is an extractor
    return network


EXTRACTOR = "extractor."  # begins the names of the extractor's weights


def _is_extractors(name: str) -> bool:
    return name.startswith(EXTRACTOR)


def read_extractor(card: ModelCard) -> dict[str, Any]:
    """The extractor's tensors that a model holds, by the extractor's own names; empty if it holds none."""
    state = read_tensors(card.path, "Copy it anew.")
    return {name.removeprefix(EXTRACTOR): tensor for name, tensor in state.items() if _is_extractors(name)}
