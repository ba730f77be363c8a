# SPDX-License-Identifier: Apache-2.0
"""Whether files of features were made in one way, and in the way that the configuration says."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from persam_monai.data.features.info import FeatureInfo, Made
from persam_monai.errors import UserError

MAKE = "make them with run extracting."
SHOWN = 3  # files named of each kind
ROUNDED = 0.01  # relative: 0.33 stands for a third
WEIGHTS_SHOWN = 12  # hexadecimal digits
SETTABLE = {"mpp": "--mpp", "patch_size": "--patch_size", "extractor": "--extractor_name"}
PIXELS = {  # settings of our own, without which an extractor is another
    "pixel_mean": "mean of the pixels",
    "pixel_std": "standard deviation of the pixels",
    "input_size": "size of the extractor's input in pixels",
}
WORDS = {
    "extractor": "extractor",
    "weights": "SHA-256 of its weights",
    "dim": "features of a patch",
    "mpp": "µm per pixel (mpp)",
    "patch_size": "patch size in pixels",
    **PIXELS,
}

Kinds = list[tuple[Any, list[FeatureInfo]]]  # files by what they say


def check_agreement(infos: Sequence[FeatureInfo], expected: Made) -> Made:
    """Refuse files that do not belong together, or are not what the configuration expects.

    What a file does not say is taken to be right.

    Args:
        infos: of all files, at least one.
        expected: what the configuration says; ``None`` where it says nothing.

    Returns:
        What all files that say anything agree on.

    Raises:
        UserError: lists everything that does not agree, with both values, and the cure.
    """
    problems, settings, mixed = [], [], False
    agreed: dict[str, Any] = {}
    for name, words in WORDS.items():
        kinds = _kinds(infos, name)
        wanted = getattr(expected, name, None)
        if len(kinds) > 1:
            mixed = True
            found = "; ".join(f"{_shown(name, value)} in {_files(files)}" for value, files in kinds)
            said = "" if wanted is None else f" (the configuration says {_shown(name, wanted)})"
            problems.append(f"{words}: {found}{said}.")
        if len(kinds) == 1:
            ((value, files),) = kinds
            agreed[name] = value
            if wanted is not None and not _same(value, wanted):
                found, said = _shown(name, value), _shown(name, wanted)
                problems.append(f"{words}: {found} in {_files(files)}; the configuration says {said}.")
                settings.append(f"{SETTABLE[name]} {found}")
    if problems:
        raise UserError("\n  - ".join(["The features do not fit:", *problems]) + f"\n{_cure(mixed, settings)}")
    known = {one.name for one in fields(Made)}
    about = {name: value for name, value in agreed.items() if name in known}
    return Made(**about, settings=_common_settings(infos), version=_common_version(infos))


def unsaid(infos: Sequence[FeatureInfo], expected: Made) -> dict[str, int]:
    """For what the configuration says: how many files do not say it."""
    names = [name for name in SETTABLE if getattr(expected, name) is not None]
    counts = {name: sum(getattr(info.made, name) is None for info in infos) for name in names}
    return {name: count for name, count in counts.items() if count}


def same_extractor(made: Made) -> dict[str, Any]:
    """Of what made features, what makes an extractor the same; JSON-able."""
    settings = {name: made.settings[name] for name in PIXELS if name in made.settings}
    about = {"extractor": made.extractor, "weights": made.weights, "mpp": made.mpp, "patch_size": made.patch_size}
    return {**about, "settings": settings}


def _kinds(infos: Sequence[FeatureInfo], name: str) -> Kinds:
    """The files by what they say, the most frequent first; without those that do not say it."""
    kinds: Kinds = []
    for info in infos:
        said = {"dim": info.dim, **vars(info.made), **info.made.settings}
        value = said.get(name)
        if value is not None or name in info.made.settings:
            files = next((files for other, files in kinds if _same(other, value)), None)
            if files is None:
                kinds.append((value, [info]))
            else:
                files.append(info)
    return sorted(kinds, key=lambda kind: -len(kind[1]))


def _same(one: Any, other: Any) -> bool:
    numbers = isinstance(one, float | int) and isinstance(other, float | int)
    if numbers and (isinstance(one, float) or isinstance(other, float)):  # whole numbers are not rounded
        return math.isclose(one, other, rel_tol=ROUNDED)
    return bool(one == other)


def _shown(name: str, value: Any) -> str:
    if name == "weights":
        return f"{value[:WEIGHTS_SHOWN]}…"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _files(files: Sequence[FeatureInfo]) -> str:
    named = ", ".join(str(info.path) for info in files[:SHOWN])
    rest = len(files) - SHOWN
    return named if rest <= 0 else f"{named} and {rest} more"


def _cure(mixed: bool, settings: Sequence[str]) -> str:
    use = f"To use these features, run with {' '.join(settings)}." if settings else ""
    keep = "Keep features of one kind in a folder of their own." if mixed else ""
    return " ".join(filter(None, (keep, use, "Else name the folder of the right ones as --features_dir, or", MAKE)))


def _common_settings(infos: Sequence[FeatureInfo]) -> dict[str, Any]:
    first, *others = (info.made.settings for info in infos)
    return {name: value for name, value in first.items() if all(name in one and one[name] == value for one in others)}


def _common_version(infos: Sequence[FeatureInfo]) -> str | None:
    versions = {info.made.version for info in infos}
    return versions.pop() if len(versions) == 1 else None
