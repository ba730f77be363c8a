# SPDX-License-Identifier: Apache-2.0
"""What people write in a schema when they mean something else."""

from __future__ import annotations

from collections.abc import Iterable

from persam_monai.errors import did_you_mean

_TRAINING = " How missing values are filled is a setting of the training: --missing learned."
_RANGE, _LOG, _LEVELS = "range: [lowest, highest]", "transform: log", "levels: [first, second]"

# The key that is meant, and how it is written.
_KEYS = {
    **dict.fromkeys(("min", "max", "minimum", "maximum", "lowest", "highest", "limits"), ("range", _RANGE)),
    **dict.fromkeys(("log", "logarithm", "log_transform"), ("transform", _LOG)),
    **dict.fromkeys(("values", "categories", "options", "choices", "labels"), ("levels", _LEVELS)),
    **dict.fromkeys(("na_values", "missing_values", "codes"), ("missing_codes", "missing_codes: [-9]")),
    "type": ("kind", "kind"),
    "variables": ("groups", "groups: {group: {variable: {kind: numeric}}}"),
}
_FILLING = ("missing", "impute", "imputation", "fill", "fill_missing", "default")
_KINDS = {
    **dict.fromkeys(("number", "numerical", "float", "int", "integer", "continuous", "real"), "numeric"),
    **dict.fromkeys(("bool", "boolean", "flag", "yesno"), "binary"),
    **dict.fromkeys(("category", "nominal", "text", "string", "enum", "factor"), "categorical"),
    **dict.fromkeys(("ordered", "rank", "grade", "stage"), "ordinal"),
}


def key_hint(key: str, known: Iterable[str]) -> str:
    """A suggestion to append to a message about an unknown key; empty when there is none.

    Args:
        key: as it was written.
        known: the keys that may stand there.
    """
    known = list(known)
    if key.lower() in _FILLING:
        return _TRAINING
    meant, written = _KEYS.get(key.lower(), (None, None))
    return f" Write {written}." if meant in known else did_you_mean(key, known)


def kind_hint(kind: str, known: Iterable[str]) -> str:
    """As :func:`key_hint`, for an unknown kind of variable."""
    meant = _KINDS.get(kind.lower())
    return f' Did you mean "{meant}"?' if meant else did_you_mean(kind, known)
