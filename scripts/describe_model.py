#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Say what a trained model is: classes, network, and what it knows of the clinical variables."""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from persam_monai.clinical import LevelVariable, NumericVariable, OrdinalVariable, Variable, VariableStatistics
from persam_monai.cohort import counted
from persam_monai.errors import UserError, messages_of_a_script
from persam_monai.model import ModelCard, load_card
from persam_monai.screen import number, text_table

_HEADS = {
    "PersAMHead": "PersAM, personalised attention",
    "TransformerHead": "Transformer without personalised attention",
    "GatedAttentionMILHead": "gated attention over the patches alone",
    "ClinicalHead": "the clinical record alone",
    "LateFusionHead": "gated attention, joined with the record at the end",
}
_MISSING = {
    "median": "the median of the training patients stands in for it",
    "learned": "the median of the training patients stands in for it, and the network is told where (learned)",
}
_UNKNOWN = "Whom it was trained on, and what their records were like, is not written down (a converted model)."
_HEADING = ["variable", "kind", "unit", "known", "median", "in training"]
_SHOWN = (
    "width",
    "layers",
    "heads",
    "attention",
    "dropout",
    "exploratory",
    "relevance",
    "reduce_features",
    "values",
    "readings",
)


def find_model(place: str | Path) -> Path:
    """The weights of the model that a person means."""
    path = Path(place)
    candidates = [path.with_suffix(".pt")]
    if path.is_dir():
        candidates = [path / "models" / "model.pt", path / "model.pt"]
    for weights in candidates:
        if weights.is_file() and weights.with_suffix(".json").is_file():
            return weights
    raise UserError(
        f"{path}: there is no trained model here; expected {' or '.join(map(str, candidates))}, with its .json in the "
        "same folder. Name that folder, one of the two files, or the output_dir of a training that has ended."
    )


def model_lines(card: ModelCard) -> list[str]:
    """What a model is, as lines for the terminal."""
    lines = [
        f"{card.path}",
        f"Classes: {', '.join(card.schema.classes)}",
        f"Patches: {card.patch_size} x {card.patch_size} pixels at {card.mpp} µm per pixel, {card.bag_size} in a bag",
        *_head_lines(card.head),
        *([f"Reads: {card.reading}"] if card.reading else []),
        *_training_lines(card),
        "",
    ]
    heading = _HEADING[: None if card.statistics else 3]
    if card.statistics is not None:
        lines.append(f"Clinical records of {counted(card.statistics.patients, 'patient')}, as it learned them.")
    for group, variables in card.schema.groups.items():
        rows = [_row(variable, card)[: len(heading)] for variable in variables.values()]
        lines += ["", f"Group {group}:", *text_table(heading, rows, right=[3, 4])]
    return lines


def _head_lines(head: Mapping[str, Any]) -> list[str]:
    """The network after the extractor."""
    name = str(head.get("class", "PersAMHead"))
    settings = {key: value for key, value in head.items() if key in _SHOWN and value is not None}
    listed = ", ".join(f"{key} {str(value).lower()}" for key, value in settings.items())
    lines = [f"Head: {name} ({_HEADS.get(name, 'a head of your own')}); {listed or 'no settings'}"]
    if "missing" in head:  # a head that reads no record has no word for it
        lines.append(f"A missing clinical value: {_MISSING.get(head['missing'], head['missing'])}")
        lines.append(f"Clinical dropout: {float(head.get('clinical_dropout') or 0):g}")
    return lines


def _training_lines(card: ModelCard) -> list[str]:
    """Who it was trained on, and how."""
    trained, training, made = card.trained_on, card.settings, card.features
    lines = [] if card.statistics else [_UNKNOWN]
    if trained:
        each = "; ".join(f"{name}: {_counts(counts)}" for name, counts in trained.get("classes", {}).items())
        lines = [f"Trained on {_counts(trained)} ({each})"]
    if "fold" in training:
        lines.append(f"Test fold: {training['fold']} of {training.get('folds')}, seed {training.get('seed')}")
    if made is not None:
        weights = f", weights with SHA-256 {made['weights']}" if made.get("weights") else ""
        lines.append(f"Trained on features of {made.get('extractor') or 'an extractor that is not named'}{weights}")
    elif "extractor_weights" in training:
        lines.append(f"Extractor began from: {training['extractor_weights'] or 'random weights'}")
    return lines


def _counts(counts: Mapping[str, Any]) -> str:
    return ", ".join(counted(counts[f"{thing}s"], thing) for thing in ("patient", "slide") if f"{thing}s" in counts)


def _row(variable: Variable, card: ModelCard) -> list[str]:
    """One variable's line: its median, which stands in for a missing value, and what occurred in training."""
    log = getattr(variable, "transform", None) == "log"
    row = [variable.name, variable.kind + (", log" if log else ""), getattr(variable, "unit", None) or ""]
    statistics = None if card.statistics is None else card.statistics.variables[variable.name]
    if statistics is None or not statistics.known:
        return [*row, "0", "", "nobody had a value"]
    return [*row, str(statistics.known), _median(variable, statistics), _in_training(variable, statistics)]


def _median(variable: Variable, statistics: VariableStatistics) -> str:
    """The value that stands in for a missing one, where a single value does."""
    encoded = statistics.median[0]
    if isinstance(variable, NumericVariable):
        return number(variable.value(encoded))
    if not isinstance(variable, LevelVariable) or variable.width > 1:
        return ""
    middle = (variable.spellings[math.floor(encoded)], variable.spellings[math.ceil(encoded)])
    return "/".join(dict.fromkeys(middle))  # two, with as many patients on either side


def _in_training(variable: Variable, statistics: VariableStatistics) -> str:
    """Range, or the levels that occurred and those that did not."""
    if statistics.range is not None:
        ends = statistics.range
        names = [variable.levels[int(end)] if isinstance(variable, OrdinalVariable) else number(end) for end in ends]
        return " to ".join(names)
    seen = statistics.levels or ()
    unseen = [level for level in getattr(variable, "spellings", ()) if level not in seen]
    return ", ".join(seen) + (f" (nobody had: {', '.join(unseen)})" if unseen else "")


def main() -> None:
    """Parse the command line and print. The weights are not opened; only their SHA-256 is compared."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="output_dir of a training, or model.pt or model.json in its models/")
    asked = parser.parse_args()
    with messages_of_a_script():
        print(*model_lines(load_card(find_model(asked.model))), sep="\n")


if __name__ == "__main__":
    main()
