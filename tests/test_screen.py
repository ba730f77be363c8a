# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import logging
import sys
from pathlib import Path

import pytest

from persam_monai.screen import log_to, number, share, text_table


def test_the_screen_has_our_messages_and_the_file_has_all(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, console = logging.getLogger(), logging.StreamHandler(sys.stdout)
    console.setFormatter(formatter := logging.Formatter("%(levelname)s: %(message)s"))
    monkeypatch.setattr(root, "handlers", [console])
    monkeypatch.setattr(root, "level", logging.INFO)
    for run in ("first", "second"):
        with log_to(tmp_path / "new" / "run.log"):
            logging.getLogger("persam_monai.engines").info("%s: epoch 1", run)
            logging.getLogger("ignite.engine").info("engine started")
            logging.getLogger("elsewhere").warning("careful")
    logging.getLogger("ignite.engine").info("afterwards")
    assert root.handlers == [console]
    assert console.formatter is formatter
    shown = capsys.readouterr().out.splitlines()
    assert shown == ["first: epoch 1", "Warning: careful", "second: epoch 1", "Warning: careful", "INFO: afterwards"]
    kept = (tmp_path / "new" / "run.log").read_text()
    assert [word in kept for word in ("first", "second", "engine started", "careful", "afterwards")] == [True] * 4 + [
        False
    ]


def test_columns_stand_below_one_another() -> None:
    lines = text_table(["class", "patients"], [["DLBCL", "12"], ["FL", "3"]], right=[1])
    assert lines == ["  class  patients", "  DLBCL        12", "  FL            3"]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0123456, "0.01235"), (12.0, "12"), (-3.25, "-3.25"), (123456.7, "123457"), (1e-7, "0.0000001"), (0.0, "0")],
)
def test_numbers_have_four_digits_and_no_exponent(value: float, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(
    ("part", "whole", "text"),
    [(0, 9, "0 %"), (9, 9, "100 %"), (1, 9999, "0.1 %"), (9998, 9999, "99.9 %"), (1, 8, "12.5 %")],
)
def test_a_share_is_nothing_or_everything_only_if_it_is(part: int, whole: int, text: str) -> None:
    assert share(part, whole) == text
