# SPDX-License-Identifier: Apache-2.0
"""What stands between MONAI's command line and who types it: error messages, misspelt overrides, texts as typed."""

from __future__ import annotations

import copy
import inspect
import logging
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from fire.parser import DefaultParseValue
from monai.bundle import ConfigParser
from monai.bundle.utils import DEFAULT_MLFLOW_SETTINGS
from tqdm import tqdm

from persam_monai.errors import UserError
from persam_monai.overrides import check_head, check_overrides
from persam_monai.settings import RULES, UNRECORDED, check_settings

# `python -m monai.bundle run` binds positional arguments in this order; none of these is an override.
RUN_ARGUMENTS = ("run_id", "init_id", "final_id", "meta_file", "config_file", "logging_file", "tracking", "args_file")
# Settings that are text, even where they look like a number to Python Fire.
TEXTS = frozenset(
    {
        *("dataset_dir", "table", "folds_file", "slide", "model", "extractor_weights", "index_dir"),
        *("output_dir", "evaluation_dir", "inference_dir", "features_dir", "experiment_name", "run_name"),
    }
)
TRUTH, NULL = {"true": True, "false": False}, ("null", "none")
TRAINING_ONLY = ("config_file", "resume", "overwrite", "run_name", "max_epochs", "skip_epochs", "val_interval")
PLAIN = (bool, int, float, str, list, type(None))
# Of the config, with settings of their own on which the result of a run depends.
BLOCKS = ("source", "extractor", "patch_extractor", "head", "loss", "optimizer", "lr_scheduler")
_EVALUATED = ("$", "@", "%")  # what MONAI's expressions, references and macros begin with
INTERRUPTED = (
    "Interrupted. A training goes on from its last epoch with --resume true, an extraction with the same command."
)


def begin() -> None:
    """The first line of every config's ``initialize``.

    Refuses overrides that no config key answers to, sets what was typed as it was meant, and makes the command line end
    with the message of our own error alone, unless ``debug`` is set.

    Raises:
        UserError: names the unknown override and the key that was probably meant, or settings that are not possible or
            not what was given.
    """
    for handler in logging.getLogger().handlers:
        handler.addFilter(_not_terminating)
    sys.excepthook = _print_user_error
    given, parser = _typed(sys.argv), _running_parser()
    if given is not None:
        check_overrides(given.config_files, given.overrides)
    if parser is None:
        return
    if given is not None:
        _set_as_meant(given, parser)
    config = parser.get()
    if config.get("debug") is True:
        sys.excepthook = sys.__excepthook__
    check_head(config)
    if "evaluating" in config and "training" not in config:
        raise UserError(
            "evaluate.json changes train.json and does not stand alone: --config_file "
            "\"['bundle/configs/train.json','bundle/configs/evaluate.json']\"."
        )
    check_settings(config)


def running_config() -> dict[str, Any]:
    """The config that is being run, with all files merged and all overrides applied, before anything is evaluated.

    For use in a config's expressions.

    Raises:
        RuntimeError: if no config is being evaluated.
    """
    parser = _running_parser()
    if parser is None:
        raise RuntimeError("running_config() is for the expressions of a config that MONAI is running.")
    return copy.deepcopy(parser.get())


def running_settings() -> dict[str, Any]:
    """What the run's result depends on, of the config that is being run; for use in a config's expressions.

    Returns:
        JSON-able: the settings that users change, with their values, and the blocks that have settings of their own.

    Raises:
        RuntimeError: if no config is being evaluated.
    """
    config, parser = running_config(), _running_parser()
    assert parser is not None
    names = [name for name in (*RULES, "extractor_weights") if name in config and name not in UNRECORDED]
    values = {name: parser.get_parsed_content(name) for name in names}
    values = {name: value if isinstance(value, PLAIN) else str(value) for name, value in values.items()}
    return {**values, **{name: config[name] for name in BLOCKS if name in config}}


def next_command(run_id: str, *files: str) -> str | None:
    """The command line that is running, for another run; None where it is no ``monai.bundle run``."""
    given = _typed(sys.argv)
    if given is None or not given.config_files:
        return None
    configs = [*given.config_files, *(str(Path(given.config_files[0]).with_name(file)) for file in files)]
    listed = str(configs).replace(", ", ",")
    kept = {name: word for name, word in given.words.items() if name not in TRAINING_ONLY}
    options = [f"--{name} {shlex.quote(word)}" for name, word in kept.items()]
    return " ".join([f'python -m monai.bundle run {run_id} --config_file "{listed}"', *options])


def _running_parser() -> ConfigParser | None:
    """The parser that evaluates the expression that is being run, which gets no reference to it: among the callers."""
    frame = inspect.currentframe()
    while frame is not None:
        caller = frame.f_locals.get("self")
        if isinstance(caller, ConfigParser):
            return caller
        frame = frame.f_back
    return None


def user_error_in(error: BaseException | None) -> UserError | None:
    """The :class:`UserError` that ``error`` is or was caused by, if there is one."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, UserError):
            return error
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return None


def _print_user_error(kind: type[BaseException], value: BaseException, traceback: TracebackType | None) -> None:
    """An excepthook: our own message alone, everything else as Python prints it."""
    for bar in list(getattr(tqdm, "_instances", ())):
        bar.close()  # or it is drawn once more, behind the message, when Python ends
    error = user_error_in(value)
    if isinstance(value, KeyboardInterrupt):
        print(f"\n{INTERRUPTED}", file=sys.stderr)
    elif error is None:
        sys.__excepthook__(kind, value, traceback)
    else:
        print(f"\nError: {error}", file=sys.stderr)


class _NotTerminating(logging.Filter):
    """Drops Ignite's announcement of an exception that Python prints anyway, as every engine on the way makes one."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to keep ``record``."""
        return "terminating due to exception" not in str(record.msg)


_not_terminating = _NotTerminating()  # one, for a handler takes the same filter only once


class Typed(NamedTuple):
    """What stands on the command line."""

    config_files: list[str]
    overrides: dict[str, Any]  # as Python Fire understands them
    words: dict[str, str]  # as they were typed


def _typed(argv: Sequence[str]) -> Typed | None:
    """What stands on the command line of ``monai.bundle run``; None if that is not what runs."""
    if len(argv) < 2 or Path(argv[0]).parts[-3:] != ("monai", "bundle", "__main__.py"):
        return None
    if argv[1] not in ("run", "run_workflow"):
        return None
    given: dict[str, Any] = {}
    typed: dict[str, str] = {}
    positional = iter(RUN_ARGUMENTS)
    words = list(argv[2:])
    while words:
        word = words.pop(0)
        if not _is_flag(word):
            given[next(positional, "args_file")] = DefaultParseValue(word)
            continue
        name, equals, value = word.lstrip("-").partition("=")
        if not equals and words and not _is_flag(words[0]):
            value = words.pop(0)
        typed[name.replace("-", "_")] = value
        given[name.replace("-", "_")] = DefaultParseValue(value) if value else True
    if given.get("args_file"):
        given = {**ConfigParser.load_config_file(str(given["args_file"])), **given}
    files = given.get("config_file", [])
    files = [files] if isinstance(files, str) else list(files)
    overrides = {name: value for name, value in given.items() if name not in RUN_ARGUMENTS}
    if given.get("tracking") is not None:
        overrides = {k: v for k, v in overrides.items() if k not in DEFAULT_MLFLOW_SETTINGS["configs"]}
    return Typed([str(file) for file in files], overrides, typed)


def _set_as_meant(given: Typed, parser: ConfigParser) -> None:
    """Set in the running config what was typed, as it was meant.

    Python Fire leaves ``true`` and ``null`` as text, reads ``2024_01`` as 202401 and ``run#1`` as ``run``, and MONAI
    reads ``./run#1`` as ``./run::1``.
    """
    for option, value in given.overrides.items():
        name, word = option.lstrip("+"), given.words.get(option)
        text = word if word and word[0] not in "'\"" else value  # from an args_file, or in quotes within quotes
        if name not in parser or not isinstance(text, str) or text.startswith(_EVALUATED):
            continue
        if text.lower() in NULL:
            parser[name] = None
        elif name in TEXTS or (isinstance(value, str) and text.lower() not in TRUTH):
            parser[name] = _expression(text) if re.search("#|::", text) else text
        elif text.lower() in TRUTH:
            parser[name] = TRUTH[text.lower()]
    parser.parse()


def _expression(text: str) -> str:
    """A text as an expression of MONAI, which leaves what it evaluates to as it is."""
    return "$" + re.sub("[#@%]", lambda sign: rf"\x{ord(sign[0]):x}", repr(text))


def _is_flag(word: str) -> bool:
    """Whether Python Fire takes a word for a flag; ``-1`` and ``-.5`` are values."""
    return re.match(r"--|-[a-zA-Z]", word) is not None
