# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fire.parser import DefaultParseValue
from monai.bundle import ConfigParser, ConfigWorkflow

from persam_monai import commandline
from persam_monai.commandline import _typed
from persam_monai.errors import UserError
from persam_monai.overrides import check_overrides

PROGRAM = "/usr/lib/python3/site-packages/monai/bundle/__main__.py"
CONFIG = {
    "max_epochs": 9,
    "bag_size": 100,
    "milestones": [3, 6],
    "optimizer": {"_target_": "torch.optim.SGD", "lr": 0.1},
    "extractor": {"_target_": "monai.networks.nets.resnet50", "spatial_dims": 2},
    "train": {"trainer": {"_target_": "SupervisedTrainer", "max_epochs": "@max_epochs"}, "patches": "@patches"},
    "patches": {"_target_": "persam_monai.data.PatchSettings", "size": 224},
}


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(CONFIG))
    return str(path)


def complaint(config: str, *overrides: str) -> str:
    with pytest.raises(UserError) as caught:
        check_overrides([config], dict.fromkeys(overrides, 1))
    return str(caught.value)


@pytest.mark.parametrize(
    "override",
    [
        "max_epochs",
        "optimizer",
        "optimizer#lr",
        "optimizer::lr",
        "optimizer#momentum",  # not in the config, but an argument of torch.optim.SGD
        "optimizer#_disabled_",
        "extractor#widen_factor",  # goes through resnet50's **kwargs
        "train#trainer#max_epochs",
        "train#trainer#amp",  # of a component that MONAI finds by its bare name
        "patches#min_tissue",
        "milestones#0",
        "+max_epochs",
        "+optimizer#lr",
        "bundle_root",
        "_meta_",
        "_meta_#version",
    ],
)
def test_what_has_an_effect_may_be_overridden(config: str, override: str) -> None:
    check_overrides([config], {override: 1})


@pytest.mark.parametrize(
    ("override", "suggestion"),
    [
        ("max_epocs", 'Did you mean "max_epochs"?'),
        ("Bag_size", 'Did you mean "bag_size"?'),
        ("optimizer#learning", ""),
        ("optimizer#momentun", 'Did you mean "momentum"?'),
        ("optimiser#lr", 'Did you mean "optimizer"?'),
        ("optimizer::momentun", 'Did you mean "momentum"?'),
        ("+max_epocs", 'Did you mean "max_epochs"?'),
        ("train#triner#max_epochs", 'Did you mean "trainer"?'),
        ("train#trainer#max_epoch", 'Did you mean "max_epochs"?'),
        ("spatial_dims", 'Did you mean "extractor#spatial_dims"?'),
        ("milestones#2", ""),
        ("max_epochs#lr", 'Did you mean "optimizer#lr"?'),  # a number has no keys
        ("train#patches#size", 'Did you mean "patches#size"?'),  # a reference has none either
    ],
)
def test_what_would_have_no_effect_is_refused(config: str, override: str, suggestion: str) -> None:
    message = complaint(config, "bag_size", override)
    assert f"--{override.lstrip('+').replace('::', '#')}: there is no key" in message
    assert message.endswith(suggestion or "no effect.")


def test_later_configs_add_keys(config: str, tmp_path: Path) -> None:
    other = tmp_path / "other.json"
    other.write_text(json.dumps({"evaluate": {"folder": "x"}}))
    check_overrides([config, str(other)], {"evaluate#folder": 1, "bag_size": 1})
    assert "'evaluate'" in complaint(config, "evaluate#folder")


@pytest.mark.parametrize(
    ("words", "files", "overrides"),
    [
        (["training", "--config_file", "a.json", "--bag_size", "3"], ["a.json"], {"bag_size": 3}),
        (["training", "--config_file=a.json", "--bag_size=3"], ["a.json"], {"bag_size": 3}),
        (["--config_file", "['a.json','b.json']"], ["a.json", "b.json"], {}),
        (["run", "--config_file", "a.json", "--lr", "-0.5"], ["a.json"], {"lr": -0.5}),
        (["run", "--config_file", "a.json", "--lr", "-.5"], ["a.json"], {"lr": -0.5}),
        (["run", "--config_file", "a.json", "--resume", "--fold", "1"], ["a.json"], {"resume": True, "fold": 1}),
        (["run", "--config_file", "a.json", "--bag-size", "3"], ["a.json"], {"bag_size": 3}),
        (["run", "--config_file", "a.json", "--optimizer#lr", "1e-3"], ["a.json"], {"optimizer#lr": 1e-3}),
        (["run", "--config_file", "a.json", "--output_dir", "a-b/c"], ["a.json"], {"output_dir": "a-b/c"}),
        (["run", "None", "None", "meta.json", "a.json", "--fold", "1"], ["a.json"], {"fold": 1}),
        (
            ["--config_file", "a.json", "--meta_file", "m.json", "--logging_file", "l.conf", "--init_id", "x"],
            ["a.json"],
            {},
        ),
        (["--config_file", "a.json", "--tracking", "mlflow", "--experiment_name", "x"], ["a.json"], {}),
        (["--config_file", "a.json", "--experiment_name", "x"], ["a.json"], {"experiment_name": "x"}),
    ],
)
def test_the_command_line_is_read_as_monai_reads_it(
    words: list[str], files: list[str], overrides: dict[str, Any]
) -> None:
    given = _typed([PROGRAM, "run", *words])
    assert given is not None
    assert given[:2] == (files, overrides)


def test_an_args_file_is_read_and_the_command_line_wins(tmp_path: Path) -> None:
    path = tmp_path / "args.json"
    path.write_text(json.dumps({"config_file": "a.json", "bag_size": 3, "fold": 1}))
    given = _typed([PROGRAM, "run", "training", "--args_file", str(path), "--fold", "2"])
    assert given is not None
    assert given[:2] == (["a.json"], {"bag_size": 3, "fold": 2})


@pytest.mark.parametrize(
    "argv",
    [
        [],
        [PROGRAM],
        [PROGRAM, "verify_net_in_out", "network_def", "--config_file", "a.json"],
        ["/usr/bin/pytest", "run", "--max_epocs", "1"],
        ["-c", "run", "--max_epocs", "1"],
        ["/usr/lib/ipykernel_launcher.py", "-f", "kernel.json"],
    ],
)
def test_other_programs_command_lines_are_let_alone(argv: list[str]) -> None:
    assert _typed(argv) is None


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Runs ``begin`` with a command line; what it changes is undone."""

    def begin(*words: str, config: dict[str, Any] | None = None) -> None:
        monkeypatch.setattr(sys, "excepthook", sys.__excepthook__)
        monkeypatch.setattr(sys, "argv", list(words))
        for handler in logging.getLogger().handlers:
            monkeypatch.setattr(handler, "filters", list(handler.filters))
        monkeypatch.setattr(commandline, "_running_parser", lambda: config and ConfigParser(config))
        commandline.begin()

    return begin


def test_a_misspelt_override_ends_the_run_before_it_begins(begun: Callable[..., None], config: str) -> None:
    begun(PROGRAM, "run", "training", "--config_file", config, "--max_epochs", "1")
    begun("pytest", "--max_epocs", "1")
    with pytest.raises(UserError, match=r'--max_epocs.*Did you mean "max_epochs"'):
        begun(PROGRAM, "run", "training", "--config_file", config, "--max_epocs", "1")


def wrapped(error: Exception) -> RuntimeError:
    """``error`` as it comes out of a config's expression."""
    try:
        try:
            raise error
        except Exception as inner:
            raise RuntimeError("Failed to evaluate ConfigExpression") from inner
    except RuntimeError as outer:
        return outer


def test_our_errors_are_shown_alone(begun: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    begun("pytest")
    for error in (UserError("Slide a.svs is broken."), wrapped(UserError("Slide a.svs is broken."))):
        sys.excepthook(type(error), error, error.__traceback__)
        assert capsys.readouterr() == ("", "\nError: Slide a.svs is broken.\n")


def test_an_interruption_is_a_sentence_too(begun: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    begun("pytest")
    sys.excepthook(KeyboardInterrupt, KeyboardInterrupt(), None)
    first, second = "A training goes on from its last epoch with --resume true", "an extraction with the same command"
    assert capsys.readouterr().err == f"\nInterrupted. {first}, {second}.\n"


def test_other_errors_keep_their_traceback(begun: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    begun("pytest")
    error = wrapped(KeyError("a bug"))
    sys.excepthook(type(error), error, error.__traceback__)
    shown = capsys.readouterr().err
    assert "Traceback" in shown
    assert "KeyError: 'a bug'" in shown
    assert "Failed to evaluate ConfigExpression" in shown


@pytest.mark.parametrize("debug", [True, False])
def test_debugging_keeps_the_traceback_of_our_errors(begun: Callable[..., None], debug: bool) -> None:
    begun("pytest", config={"debug": debug})
    assert (sys.excepthook is sys.__excepthook__) is debug


def test_impossible_settings_end_the_run_before_it_begins(begun: Callable[..., None]) -> None:
    with pytest.raises(UserError, match="bag_size is 0; expected a whole number of at least 1"):
        begun("pytest", config={"bag_size": 0})


def test_evaluating_alone_says_what_it_needs(begun: Callable[..., None]) -> None:
    with pytest.raises(UserError, match=r"train\.json.*evaluate\.json"):
        begun("pytest", config={"evaluating": "$1"})


@pytest.fixture
def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., ConfigParser]:
    """A config that MONAI has begun to run with one option."""

    def start(option: str, word: str, value: object, by: str = "command line") -> ConfigParser:
        config = {
            "imports": ["$import persam_monai"],
            **{"output_dir": "output", "run_name": "training", "extractor": {"path": "model.ts"}},
            "initialize": ["$persam_monai.commandline.begin()"],
            **{
                "folder": "$str(@output_dir) + '/models'",
                "holder": {"_target_": "builtins.dict", "own": "@output_dir"},
            },
        }
        (tmp_path / "texts.json").write_text(json.dumps(config))
        (tmp_path / "args.json").write_text(json.dumps({option: word}))
        monkeypatch.setattr(sys, "excepthook", sys.__excepthook__)
        words = ["--args_file", str(tmp_path / "args.json")] if by == "args_file" else [f"--{option}", word]
        program = [PROGRAM, "run", "--config_file", str(tmp_path / "texts.json"), *words]
        monkeypatch.setattr(sys, "argv", program if by != "program" else ["notebook"])
        workflow = ConfigWorkflow(program[3], [], False, workflow_type=None, **{option: value})
        workflow.initialize()
        return workflow.parser

    return start


@pytest.mark.parametrize(
    "word",
    [
        *("2024_01", "1e3", "0x10", "1.10", "a,b", "[a]", "{a}"),
        *(
            "run#1",
            "./run#1",
            "/a b/run #1",
            "run # 1",
            "#",
            "a::b",
            r"a\#b",
            "50%#2 @x",
            "it's #1",
            "ﬁle",
            "a b ",
            "what?",
        ),
    ],
)
@pytest.mark.parametrize("option", ["output_dir", "run_name"])
def test_a_path_or_name_is_what_was_typed(started: Callable[..., ConfigParser], option: str, word: str) -> None:
    parser = started(option, word, DefaultParseValue(word))
    assert parser.get_parsed_content(option) == word
    if option == "output_dir":
        assert parser.get_parsed_content("folder") == f"{word}/models"
        assert parser.get_parsed_content("holder") == {"own": word}


def test_so_is_any_other_text(started: Callable[..., ConfigParser]) -> None:
    parser = started("extractor#path", "model #2.ts", "model")
    assert parser.get_parsed_content("extractor#path") == "model #2.ts"


@pytest.mark.parametrize(("word", "value"), [("'run #1'", "run #1"), ("$'run' + '1'", "run1")])
def test_what_is_not_meant_as_typed_is_read(started: Callable[..., ConfigParser], word: str, value: str) -> None:
    assert started("output_dir", word, DefaultParseValue(word)).get_parsed_content("output_dir") == value


def test_an_args_file_is_taken_at_its_word(started: Callable[..., ConfigParser]) -> None:
    assert started("output_dir", "run#1", "run#1", by="args_file").get_parsed_content("folder") == "run#1/models"


def test_engines_do_not_announce_an_error_that_python_prints(
    begun: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    begun("pytest")
    begun("pytest")
    assert all(len(handler.filters) == len(set(handler.filters)) for handler in logging.getLogger().handlers)
    logging.getLogger("ignite.engine").error("Engine run is terminating due to exception: a slide is damaged")
    assert "terminating" not in caplog.text


@pytest.mark.parametrize(
    ("word", "value"),
    [("true", True), ("False", False), ("null", None), ("None", None), ("0.5", 0.5), ("word", "word")],
)
def test_what_is_typed_is_what_it_means(started: Callable[..., ConfigParser], word: str, value: object) -> None:
    given = "model.ts" if word == "None" else DefaultParseValue(word)  # MONAI drops None
    assert started("extractor#path", word, given).get_parsed_content("extractor#path") == value


def test_the_next_command_is_the_same_for_another_run(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["training", "--config_file", "b/train.json", "--output_dir", "a b", "--resume", "true"]
    monkeypatch.setattr(sys, "argv", [PROGRAM, "run", *words])
    assert commandline.next_command("evaluating", "evaluate.json") == (
        "python -m monai.bundle run evaluating --config_file \"['b/train.json','b/evaluate.json']\" --output_dir 'a b'"
    )
    monkeypatch.setattr(sys, "argv", ["pytest"])
    assert commandline.next_command("evaluating") is None


def test_an_expression_sees_the_whole_config_with_its_overrides() -> None:
    parser = ConfigParser(
        {
            "imports": ["$import persam_monai"],
            "bag_size": 3,
            "seen": "$persam_monai.commandline.running_config()",
            "holder": {"_target_": "builtins.dict", "inner": "@seen"},
        }
    )
    parser.set(7, "bag_size")
    seen = parser.get_parsed_content("holder")["inner"]
    assert seen["bag_size"] == 7
    assert seen["holder"]["inner"] == "@seen"  # nothing is evaluated
    seen["bag_size"] = 0
    assert parser.get("bag_size") == 7
    with pytest.raises(RuntimeError, match="for the expressions of a config"):
        commandline.running_config()
