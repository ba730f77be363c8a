#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Convert a checkpoint of the paper authors' public code into a model that inference reads."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from persam_monai.clinical import ClinicalSchema
from persam_monai.errors import UserError, messages_of_a_script
from persam_monai.files import read_tensors
from persam_monai.model import save_model
from persam_monai.networks import (
    PersAM,
    PersAMHead,
    PersAMOnFeatures,
    describe_head,
    load_extractor_weights,
    resnet50_backbone,
)
from persam_monai.networks.reference import has_extractor, load_reference_state_dict, reference_settings
from persam_monai.settings import check_settings


def convert_reference_checkpoint(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    schema: str | os.PathLike[str] | None = None,
    mpp: float = 0.25,
    patch_size: int = 224,
    bag_size: int = 100,
    attention: str = "balanced",
    heads: int = 8,
    extractor_weights: str | None = None,
    backbone: nn.Module | None = None,
) -> str:
    """Writes ``model.pt`` and ``model.json`` from a checkpoint of the public code.

    Args:
        source: what the public code has saved: a state dict, or a dict in which one stands.
        output: where the weights go, such as ``output/models/model.pt``; the description is written beside it.
        schema: a ``clinical.yaml`` with the checkpoint's classes and variables, in its order; ``None`` makes one with
            names such as ``class_1`` and ``group_1_variable_1``.
        mpp: µm per pixel of the patches that it was trained on.
        patch_size: side of a patch in pixels.
        bag_size: patches in a bag.
        attention: ``"balanced"`` or ``"standard"``, as it was trained.
        heads: of the encoder, as it was trained.
        extractor_weights: for a checkpoint without extractor, see
            :func:`persam_monai.networks.load_extractor_weights`; without them the head alone is written.
        backbone: the extractor to fill; ``None`` is ResNet50, as the bundle builds it.

    Returns:
        What the user should know of the model that was written.

    Raises:
        UserError: if the checkpoint cannot be read, does not fit, or ``output`` is there already.
    """
    path = Path(output)
    taken = [str(file) for file in (path, path.with_suffix(".json")) if file.exists()]
    if taken or path.suffix == ".json":
        problem = f"{', '.join(taken)} exists already" if taken else f"{path} is where the description would go"
        raise UserError(f"{problem}. Name a new file for the weights, such as output/models/model.pt.")
    check_settings({"mpp": mpp, "patch_size": patch_size, "bag_size": bag_size})
    state = _read(Path(source))
    settings = reference_settings(state, attention, heads)
    clinical = _generic(settings) if schema is None else ClinicalSchema.load(Path(schema))
    _check(clinical, settings, str(schema))
    head = PersAMHead(**settings)
    network: PersAM | PersAMOnFeatures = PersAMOnFeatures(head)
    if has_extractor(state) or extractor_weights is not None:
        network = PersAM(resnet50_backbone() if backbone is None else backbone, head)
        if not has_extractor(state):
            load_extractor_weights(network.extractor, extractor_weights)
    load_reference_state_dict(network if isinstance(network, PersAM) else head, state)
    card = {
        "schema": clinical.to_dict(),
        "head": describe_head(head),
        "patch_size": patch_size,
        "mpp": mpp,
        "bag_size": bag_size,
        "settings": {},  # of a training of ours; nobody knows theirs
        "converted_from": Path(source).name,
    }
    save_model(network, path, card)
    return _report(path, network, clinical)


def _read(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint by name."""
    if not path.is_file():
        raise UserError(f"{path} is not a file. Expected a checkpoint of the public code, saved by torch.save.")
    content = read_tensors(
        path,
        "Expected what torch.save(model.state_dict(), path) writes; a checkpoint that holds Python objects could run "
        "anything and is not opened.",
    )
    candidates = [content, *(content.values() if isinstance(content, Mapping) else [])]
    for candidate in candidates:
        if isinstance(candidate, Mapping) and candidate and all(isinstance(v, Tensor) for v in candidate.values()):
            return dict(candidate)
    found = f"keys {list(content)[:5]}" if isinstance(content, Mapping) else type(content).__name__
    raise UserError(f"{path} holds no state dict: expected tensors by name, found {found}.")


def _generic(settings: Mapping[str, Any]) -> ClinicalSchema:
    """A schema of numeric variables without names of their own."""
    groups = {
        f"group_{group}": {f"group_{group}_variable_{i}": {"kind": "numeric"} for i in range(1, size + 1)}
        for group, size in enumerate(settings["clinical_groups"], start=1)
    }
    classes = [f"class_{i}" for i in range(1, settings["num_classes"] + 1)]
    return ClinicalSchema.from_dict({"classes": classes, "groups": groups})


def _check(schema: ClinicalSchema, settings: Mapping[str, Any], source: str) -> None:
    """Raise unless the schema has the checkpoint's classes and variables."""
    found = (len(schema.classes), schema.group_sizes)
    expected = (settings["num_classes"], settings["clinical_groups"])
    if found != expected:
        raise UserError(
            f"{source} declares {found[0]} classes and groups of {found[1]} numbers; the checkpoint has {expected[0]} "
            f"classes and groups of {expected[1]}. Declare them in the checkpoint's order."
        )


def _report(path: Path, network: PersAM | PersAMOnFeatures, schema: ClinicalSchema) -> str:
    """What was written, and what it expects."""
    extractor = (
        ""
        if isinstance(network, PersAM)
        else (
            "\nThe checkpoint has no extractor: predict from features (--features_dir), or convert it again with "
            "--extractor_weights to predict from slides."
        )
    )
    return (
        f"Wrote {path} and {path.with_suffix('.json').name}: classes {', '.join(schema.classes)}; groups of "
        f"{schema.group_sizes} clinical numbers.\nLike the public code's network, it expects clinical values that are "
        "standardised already, with the statistics of its own training (kind: numeric in the schema); a missing value "
        "counts as 0, the mean. Pixels need no such care."
        f"{extractor}\nPredict with: python -m monai.bundle run inference … --model {path}"
    )


def main() -> None:
    """Parse the command line and convert the checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("source", metavar="IN", help="checkpoint of the public code")
    parser.add_argument("output", metavar="OUT", help="weights to write, such as output/models/model.pt")
    parser.add_argument("--schema", help="clinical.yaml with the checkpoint's classes and variables, in its order")
    parser.add_argument("--mpp", type=float, default=0.25, help="µm per pixel that it was trained on")
    parser.add_argument("--patch_size", type=int, default=224, help="side of a patch in pixels")
    parser.add_argument("--bag_size", type=int, default=100, help="patches in a bag")
    parser.add_argument("--attention", choices=("balanced", "standard"), default="balanced", help="as it was trained")
    parser.add_argument("--heads", type=int, default=8, help="of the encoder, as it was trained")
    parser.add_argument("--extractor_weights", help="for a checkpoint without extractor: a path, or imagenet")
    with messages_of_a_script():
        print(convert_reference_checkpoint(**vars(parser.parse_args())))


if __name__ == "__main__":
    main()
