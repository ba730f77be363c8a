# SPDX-License-Identifier: Apache-2.0
"""Heads by name: a trained model says which one it is, and the same one is built again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from persam_monai.errors import UserError, did_you_mean
from persam_monai.networks.baselines import ClinicalHead, GatedAttentionMILHead, LateFusionHead, TransformerHead
from persam_monai.networks.head import Head
from persam_monai.networks.persam import PersAMHead

# A name in a data file chooses among these and nothing else: no file makes us import what it likes.
HEADS: dict[str, type[Head]] = {
    head.__name__: head for head in (PersAMHead, GatedAttentionMILHead, ClinicalHead, LateFusionHead, TransformerHead)
}


def describe_head(head: Head) -> dict[str, Any]:
    """What :func:`build_head` builds a head's like from: its class's name under ``class``, and its arguments."""
    return {"class": type(head).__name__, **head.settings}


def build_head(description: Mapping[str, Any]) -> Head:
    """Builds the head that a model card describes.

    Args:
        description: the name of one of our heads under ``class`` (:class:`PersAMHead` if there is none), and its
            arguments.

    Raises:
        UserError: if the name is not one of our heads, or the arguments are not possible.

    Example:
        >>> build_head({"class": "ClinicalHead", "width": 64}).settings["width"]
        64
    """
    arguments = dict(description)
    name = arguments.pop("class", PersAMHead.__name__)
    if not isinstance(name, str) or name not in HEADS:
        raise UserError(
            f"The model has a head of the class {name!r}; expected one of {', '.join(HEADS)}."
            f"{did_you_mean(str(name), HEADS)} For a head of your own, give the config's block head in a file of yours."
        )
    try:
        return HEADS[name](**arguments)
    except (TypeError, ValueError) as error:
        raise UserError(f"The model's head {name} cannot be built as it is described: {error}") from error
