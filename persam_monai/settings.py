# SPDX-License-Identifier: Apache-2.0
"""What values the configs' settings can take, checked before anything is done with them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from persam_monai.errors import did_you_mean, raise_together


@dataclass(frozen=True)
class Rule:
    """What a setting may be.

    Args:
        expected: in words, for the message.
        admits: whether a value is possible.
    """

    expected: str
    admits: Callable[[Any], bool]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def whole(least: int) -> Rule:
    """A whole number of at least ``least``."""
    return Rule(
        f"a whole number of at least {least}",
        lambda value: _is_number(value) and isinstance(value, int) and value >= least,
    )


def choice(*words: str) -> Rule:
    """One of ``words``."""
    return Rule(f"one of {', '.join(words)}", lambda value: value in words)


def _is_device(value: object) -> bool:
    """Whether this machine has the device."""
    import torch  # here, because who only checks a table should not wait for it

    try:
        device = torch.device(str(value))
    except (RuntimeError, TypeError):
        return False
    return device.type == "cpu" or (device.type == "cuda" and (device.index or 0) < torch.cuda.device_count())


POSITIVE = Rule("a number above 0", lambda value: _is_number(value) and value > 0)
RATE = Rule("a number of at least 0", lambda value: _is_number(value) and value >= 0)
YES_OR_NO = Rule("true or false", lambda value: isinstance(value, bool))

SIZES = ("patch_size", "bag_size", "max_bags_per_slide", "partitions", "batch_size", "accumulation_steps")
RULES: dict[str, Rule] = {
    **dict.fromkeys(("seed", "skip_epochs", "num_workers"), whole(0)),
    "fold": Rule('a whole number of at least 0, or "all"', lambda value: value == "all" or whole(0).admits(value)),
    **dict.fromkeys((*SIZES, "max_epochs", "val_interval", "feature_dim"), whole(1)),
    **dict.fromkeys(("learning_rate", "extractor_learning_rate", "clinical_learning_rate", "cache_gb"), RATE),
    **dict.fromkeys(("decay_norms", "overwrite", "debug"), YES_OR_NO),
    **dict.fromkeys(("extractor_checkpointing", "freeze_extractor"), YES_OR_NO),
    "folds": whole(3),
    "mpp": Rule("µm per pixel, such as 0.25 or 0.5", POSITIVE.admits),
    "slide_mpp": Rule("µm per pixel, such as 0.25 or 0.5, or null", lambda v: v is None or POSITIVE.admits(v)),
    "sampling": choice("snapped", "uniform", "grid"),
    "backend": choice("auto", "tiles", "cucim", "openslide"),
    "on_bad_slide": choice("raise", "skip"),
    "min_tissue": Rule("a share between 0 and 1", lambda value: _is_number(value) and 0 <= value <= 1),
    "patches_per_slide": Rule(
        'a whole number of at least 1, or "all"', lambda value: value == "all" or whole(1).admits(value)
    ),
    "missing": choice("median", "learned"),
    "clinical_dropout": Rule(
        "a probability of at least 0 and below 1", lambda value: _is_number(value) and 0 <= value < 1
    ),
    "milestones": Rule(
        'epochs in brackets, such as "[3,6]"',
        lambda value: isinstance(value, list | tuple) and all(map(whole(1).admits, value)),
    ),
    **dict.fromkeys(
        ("extractor_batch", "reduce_features"),
        Rule("a whole number of at least 1, or null", lambda value: value is None or whole(1).admits(value)),
    ),
    "precision": choice("auto", "float32", "bf16"),
    "features_dtype": choice("float16", "float32"),
    "device": Rule("a device of this machine, such as cpu or cuda:0", _is_device),
    "decimal": Rule('"." or ",", or null', lambda value: value in (".", ",", None)),
    "resume": Rule("true, false or the path of a checkpoint", lambda value: isinstance(value, bool | str)),
}


UNRECORDED = frozenset({"overwrite", "debug", "resume", "decimal"})
"""Settings on which no result depends."""


def check_settings(settings: Mapping[str, Any]) -> None:
    """Refuse values that cannot be meant.

    Args:
        settings: values by name; names without a rule, and values that a config still has to evaluate (text that
            begins with ``$`` or ``@``), are passed over.
    """
    given = {name: value for name, value in settings.items() if not str(value).startswith(("$", "@"))}
    problems = []
    for name, rule in RULES.items():
        if name in given and not rule.admits(given[name]):
            words = rule.expected.removeprefix("one of ").split(", ")
            problems.append(
                f"{name} is {given[name]!r}; expected {rule.expected}.{did_you_mean(str(given[name]), words)}"
            )
    problems = problems or _contradictions(given)
    raise_together("Some settings are not possible", problems)


def _contradictions(given: Mapping[str, Any]) -> list[str]:
    """What settings that are possible each by itself make impossible together."""
    problems = []
    if {"max_epochs", "skip_epochs", "val_interval"} <= given.keys():
        last = given["max_epochs"] // given["val_interval"] * given["val_interval"]
        if last <= min(given["skip_epochs"], given["max_epochs"] - 1):
            problems.append(
                f"no epoch is both validated and eligible: max_epochs is {given['max_epochs']}, val_interval "
                f"{given['val_interval']}, and the first {given['skip_epochs']} epochs are skipped. Lower "
                "val_interval or skip_epochs."
            )
    return problems
