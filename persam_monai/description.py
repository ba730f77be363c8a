# SPDX-License-Identifier: Apache-2.0
"""What a trained model is, in words: its classes, its network, and what it knows of the record's variables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from persam_monai.clinical import LevelVariable, NumericVariable, OrdinalVariable, Variable
from persam_monai.cohort import counted
from persam_monai.errors import UserError
from persam_monai.model import ModelCard
from persam_monai.text_table import number, text_table

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
_UNKNOWN_TRAINING = "Patients and slides that it was trained on: not written down (a converted model)."
_UNKNOWN_RECORDS = "What the training records were like is not written down (a converted model)."
_HEADING = ["variable", "kind", "unit", "known", "median", "mean ± scale", "in training"]
_TRAINING = ("fold", "folds", "seed", "extractor_weights")


def find_model(place: str | Path) -> Path:
    """The weights of the model that a person means.

    Args:
        place: ``model.pt`` or ``model.json``, the folder that they are in, or the ``output_dir`` of a training.

    Raises:
        UserError: if there is no folder with both files.
    """
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


def describe_model(card: ModelCard) -> dict[str, Any]:
    """What a model is.

    Args:
        card: as :func:`persam_monai.model.load_card` reads it.

    Returns:
        JSON-able. Of each variable: ``median`` in its own unit (numeric) or as a level, ``mean`` and ``scale`` of each
        number as the network sees it (the logarithm where ``transform`` says so), ``range`` in its own unit or as
        levels, and the ``seen`` ones of its ``levels``; each is ``None`` where it is not known or has no meaning.
    """
    return {
        "model": str(card.path),
        "classes": list(card.schema.classes),
        "mpp": card.mpp,
        "patch_size": card.patch_size,
        "bag_size": card.bag_size,
        "features": card.features,
        "head": dict(card.head),
        "record_patients": None if card.statistics is None else card.statistics.patients,
        "variables": [
            _variable(group, variable, card)
            for group, variables in card.schema.groups.items()
            for variable in variables.values()
        ],
        "trained_on": dict(card.trained_on),
        "training": {name: card.settings[name] for name in _TRAINING if name in card.settings},
    }


def model_lines(description: dict[str, Any]) -> list[str]:
    """A description as lines for the terminal."""
    side = description["patch_size"]
    lines = [
        f"{description['model']}",
        f"Classes: {', '.join(description['classes'])}",
        f"Patches: {side} x {side} pixels at {description['mpp']} µm per pixel, {description['bag_size']} in a bag",
        *_feature_lines(description["features"], bool(description["head"].get("standardise_features"))),
        *_head_lines(description["head"]),
        *_training_lines(description),
    ]
    patients = description["record_patients"]
    known = (
        _UNKNOWN_RECORDS
        if patients is None
        else f"Clinical records of {counted(patients, 'patient')}, as it learned them."
    )
    lines += ["", known]
    for group in dict.fromkeys(variable["group"] for variable in description["variables"]):
        rows = [_row(variable) for variable in description["variables"] if variable["group"] == group]
        shown = 3 if patients is None else len(_HEADING)
        lines += ["", f"Group {group}:", *text_table(_HEADING[:shown], [row[:shown] for row in rows], right=[3, 4])]
    return lines


def _variable(group: str, variable: Variable, card: ModelCard) -> dict[str, Any]:
    """One variable, and what training knew of it."""
    facts: dict[str, Any] = {
        "group": group,
        "name": variable.name,
        "kind": variable.kind,
        "unit": getattr(variable, "unit", None),
        "transform": getattr(variable, "transform", None),
        "levels": list(variable.spellings) if isinstance(variable, LevelVariable) else None,
        **dict.fromkeys(("known", "median", "mean", "scale", "range", "seen")),
    }
    statistics = None if card.statistics is None else card.statistics.variables[variable.name]
    if statistics is None:
        return facts
    facts |= {"known": statistics.known, "mean": list(statistics.mean), "scale": list(statistics.scale)}
    if statistics.known:
        facts["median"] = _median(variable, statistics.median)
        facts["range"] = _range(variable, statistics.range)
        facts["seen"] = None if statistics.levels is None else list(statistics.levels)
    return facts


def _median(variable: Variable, encoded: tuple[float, ...]) -> float | str | None:
    """The value that stands in for a missing one, where a single value does."""
    if isinstance(variable, NumericVariable):
        return variable.value(encoded[0])
    if not isinstance(variable, LevelVariable) or variable.width > 1:
        return None
    below, above = (variable.spellings[int(place)] for place in (encoded[0], -(-encoded[0] // 1)))
    return below if below == above else f"{below}/{above}"  # as many patients on either side


def _range(variable: Variable, limits: tuple[float, float] | None) -> list[float | str] | None:
    if limits is None or not isinstance(variable, OrdinalVariable):
        return None if limits is None else list(limits)
    return [variable.levels[int(place)] for place in limits]


def _feature_lines(made: dict[str, Any] | None, standardised: bool) -> list[str]:
    """Which extractor the model was trained behind, where it does not hold it."""
    if made is None:
        return []
    weights = f", weights with SHA-256 {made['weights']}" if made.get("weights") else ""
    scaled = ", each standardised by the training fold" if standardised else ""
    return [f"Trained on features of {made.get('extractor') or 'an extractor that is not named'}{weights}{scaled}"]


def _head_lines(head: dict[str, Any]) -> list[str]:
    """The network after the extractor."""
    name = str(head.get("class", "PersAMHead"))
    parts = [
        f"{words} {head[key]}"
        for key, words in (
            ("width", "width"),
            ("layers", "encoder layers"),
            ("heads", "heads"),
            ("attention", "attention"),
            ("dropout", "dropout"),
        )
        if head.get(key) is not None
    ]
    parts += [f"without {key}" for key in ("exploratory", "relevance") if head.get(key) is False]
    lines = [f"Head: {name} ({_HEADS.get(name, 'a head of your own')}); {', '.join(parts) or 'no settings'}"]
    if "missing" in head:  # a head that reads no record has no word for it
        lines.append(f"A missing clinical value: {_MISSING.get(head['missing'], head['missing'])}")
        hidden = float(head.get("clinical_dropout") or 0)
        lines.append(
            f"Clinical dropout: training hid variables and whole groups with probability {hidden:g}"
            if hidden
            else "Clinical dropout: none; training hid no value"
        )
    return lines


def _training_lines(description: dict[str, Any]) -> list[str]:
    """Who it was trained on, and how."""
    trained, training = description["trained_on"], description["training"]
    lines = [_UNKNOWN_TRAINING]
    if trained:
        each = "; ".join(f"{name}: {_counts(counts)}" for name, counts in trained.get("classes", {}).items())
        lines = [f"Trained on {_counts(trained)} ({each})"]
    if "fold" in training:
        of = f" of {training['folds']}, counted from 0" if "folds" in training else ""
        lines.append(f"Test fold: {training['fold']}{of}; seed {training.get('seed', 'not written down')}")
    if "extractor_weights" in training and description["features"] is None:
        lines.append(f"Extractor began from: {training['extractor_weights'] or 'random weights'}")
    return lines


def _counts(counts: dict[str, Any]) -> str:
    return ", ".join(counted(counts[f"{thing}s"], thing) for thing in ("patient", "slide") if f"{thing}s" in counts)


def _row(variable: dict[str, Any]) -> list[str]:
    """One variable's line."""
    known, median = variable["known"], variable["median"]
    fitted = ""
    if known and len(variable["mean"]) == 1:
        log = " (log)" if variable["transform"] == "log" else ""
        fitted = f"{number(variable['mean'][0])} ± {number(variable['scale'][0])}{log}"
    return [
        variable["name"],
        variable["kind"] + (", log" if variable["transform"] == "log" else ""),
        variable["unit"] or "",
        "" if known is None else str(known),
        "" if median is None else number(median) if isinstance(median, float) else str(median),
        fitted,
        _in_training(variable) if known else "nobody had a value",
    ]


def _in_training(variable: dict[str, Any]) -> str:
    """Range, or the levels that occurred and those that did not."""
    if variable["range"] is not None:
        low, high = (number(end) if isinstance(end, float) else str(end) for end in variable["range"])
        return f"{low} to {high}"
    seen = variable["seen"] or []
    unseen = [level for level in variable["levels"] or [] if level not in seen]
    return ", ".join(seen) + (f" (nobody had: {', '.join(unseen)})" if unseen else "")
