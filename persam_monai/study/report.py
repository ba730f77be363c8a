# SPDX-License-Identifier: Apache-2.0
"""A study as one HTML file with its tables and pictures inside."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.metrics import roc_curve

from persam_monai import __version__
from persam_monai.files import replacing
from persam_monai.metrics import Predictions

Draw = Callable[[Axes], None]

TITLES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "auroc": "macro AUROC",
    "average_precision": "average precision",
    "f1": "F1",
    "kappa": "κ",
    "nll": "NLL",
    "brier": "Brier",
    "calibration_error": "calibration error",
}
# Okabe and Ito's colours, which colour-blind readers tell apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
STYLES = ("-", "--", ":")
DPI = 110
IN_A_ROW = 4
DELETIONS = {"highest": "of highest attention", "random": "at random"}
MOVEMENTS = {
    "attention": "total variation of the patches' weights",
    "prediction": "change of the predicted class's log-odds",
    "gain": "log-odds that the true class loses",
}


def write_report(path: Path, results: Mapping[str, Any], models: Mapping[str, Sequence[Predictions]]) -> None:
    """Write the report.

    Args:
        path: of the HTML file.
        results: as :func:`persam_monai.study.comparison.describe` gives them.
        models: the runs of every model.
    """
    pictures = {
        "Difference of macro AUROC": _picture([lambda axes: _forest(axes, results)], (7, 0.35 * len(models) + 1)),
        "ROC curves, one class against the rest": _picture(
            [_roc(models, index, name) for index, name in enumerate(results["classes"])], (3.6, 3.8)
        ),
        "Reliability of the predicted class's probability": _picture(
            [_reliability(name, bins) for name, bins in results["reliability"].items()], (2.6, 2.8)
        ),
        "Confusion matrices": _picture(
            [_confusion(name, counts, results["classes"]) for name, counts in results["confusion_matrix"].items()],
            (2.6, 2.8),
        ),
    }
    personal = results.get("personalisation")
    if personal:
        pictures["Deletion curve"] = _picture([lambda axes: _deletion(axes, personal["deletion"])], (5, 3.2))
        pictures["What each variable of the record moves"] = _picture(
            [_movement(personal["variables"], what) for what in MOVEMENTS], (3.5, 0.2 * len(personal["variables"]) + 1)
        )
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("persam_monai.study"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    text = environment.get_template("report.html").render(
        results=results, titles=TITLES, pictures=pictures, version=__version__
    )
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_differences(path: Path, results: Mapping[str, Any]) -> None:
    """Write the picture of the differences of macro AUROC as SVG."""
    figure = Figure(figsize=(7, 0.35 * len(results["differences"]) + 1), layout="constrained")
    _forest(figure.subplots(), results)
    with replacing(path) as partial:
        figure.savefig(partial, format="svg", metadata={"Date": None})


def _picture(panels: Sequence[Draw], size: tuple[float, float]) -> str:
    """Panels of a size in inches, some in a row, as the address of a PNG inside the page."""
    columns = min(len(panels), IN_A_ROW)
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(size[0] * columns, size[1] * rows), layout="constrained")
    places = np.ravel(figure.subplots(rows, columns))
    for axes, panel in zip(places, panels, strict=False):
        panel(axes)
    for axes in places[len(panels) :]:
        axes.set_axis_off()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _forest(axes: Axes, results: Mapping[str, Any]) -> None:
    """What the reference has more than each model, with its interval."""
    names = list(results["differences"])
    for height, name in enumerate(reversed(names)):
        values = results["differences"][name]["auroc"]
        axes.plot([values["low"], values["high"]], [height, height], color=COLOURS[0], linewidth=2)
        axes.plot(values["estimate"], height, "s", color=COLOURS[0])
    axes.axvline(0, color="grey", linewidth=1)
    axes.set_yticks(range(len(names)), list(reversed(names)))
    axes.set_xlabel(f"macro AUROC of {results['reference']} minus the model's (95 %)")


def _roc(models: Mapping[str, Sequence[Predictions]], index: int, title: str) -> Draw:
    def draw(axes: Axes) -> None:
        for number, (name, runs) in enumerate(models.items()):
            false, true, _ = roc_curve(runs[0].labels == index, runs[0].probabilities[:, index])
            style = STYLES[number // len(COLOURS) % len(STYLES)]
            axes.plot(false, true, style, color=COLOURS[number % len(COLOURS)], label=name, linewidth=1.2)
        axes.plot([0, 1], [0, 1], color="lightgrey", linewidth=1)
        axes.set(title=title, xlabel="false positives", ylabel="true positives", aspect="equal")
        if index == 0:
            axes.legend(fontsize=6)

    return draw


def _reliability(title: str, bins: Sequence[Mapping[str, float]]) -> Draw:
    def draw(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color="lightgrey", linewidth=1)
        sizes = [3 * bin_["count"] for bin_ in bins]
        axes.scatter([b["confidence"] for b in bins], [b["accuracy"] for b in bins], sizes, color=COLOURS[0])
        axes.set(xlim=(0, 1.05), ylim=(-0.05, 1.05), aspect="equal")
        axes.set_title(title, fontsize=8)
        axes.set_xlabel("confidence", fontsize=7)
        axes.set_ylabel("share that is right", fontsize=7)
        axes.tick_params(labelsize=6)

    return draw


def _deletion(axes: Axes, deletion: Mapping[str, Any]) -> None:
    fractions = [name for name in deletion if name != "whole"]
    for colour, (way, label) in zip(COLOURS, DELETIONS.items(), strict=False):
        heights = [deletion["whole"], *(deletion[fraction][way] for fraction in fractions)]
        axes.plot([0, *(100 * float(f) for f in fractions)], heights, "o-", color=colour, label=label)
    axes.set(xlabel="removed patches (%)", ylabel="probability of the\npredicted class")
    axes.legend()


def _movement(variables: Mapping[str, Mapping[str, float]], what: str) -> Draw:
    def draw(axes: Axes) -> None:
        names = sorted(variables, key=lambda name: variables[name]["gain"])
        axes.barh(range(len(names)), [variables[name][what] for name in names], color=COLOURS[0])
        axes.set_yticks(range(len(names)), names, fontsize=7)
        axes.set_xlabel(MOVEMENTS[what], fontsize=8)

    return draw


def _confusion(title: str, counts: Sequence[Sequence[int]], classes: Sequence[str]) -> Draw:
    def draw(axes: Axes) -> None:
        matrix = np.array(counts)
        axes.imshow(matrix, cmap="Blues", vmin=0)
        for row, column in np.ndindex(matrix.shape):
            colour = "white" if matrix[row, column] > matrix.max() / 2 else "black"
            axes.text(column, row, str(matrix[row, column]), ha="center", va="center", color=colour, fontsize=8)
        axes.set_xticks(range(len(classes)), classes, rotation=45, fontsize=6)
        axes.set_yticks(range(len(classes)), classes, fontsize=6)
        axes.set_title(title, fontsize=8)
        axes.set_xlabel("predicted", fontsize=7)
        axes.set_ylabel("true", fontsize=7)

    return draw
