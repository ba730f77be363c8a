# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import hashlib
import hmac
import io
import logging
import multiprocessing
import os
import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from ignite.engine import Engine
from monai.handlers import StatsHandler

from persam_monai import privacy
from persam_monai.errors import UserError
from persam_monai.privacy import hide, keep_errors_off_logs, pseudonym

NAME = "slides/MILLER^ANNA/S21-4711.svs"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A user's config folder without a key."""
    monkeypatch.delenv("PERSAM_PSEUDONYM_KEY", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    privacy._kept_key.cache_clear()
    yield tmp_path / "config"
    privacy._kept_key.cache_clear()


def in_another_process(name: str) -> str:
    code = f"from persam_monai.privacy import pseudonym; print(pseudonym({name!r}))"
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


def test_a_pseudonym_is_a_keyed_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERSAM_PSEUDONYM_KEY", "schlüssel")
    wanted = hmac.new("schlüssel".encode(), NAME.encode(), hashlib.sha256).hexdigest()[:12]
    assert pseudonym(NAME) == wanted == in_another_process(NAME)
    assert pseudonym(NAME) != hashlib.sha256(NAME.encode()).hexdigest()[:12]
    monkeypatch.setenv("PERSAM_PSEUDONYM_KEY", "another")
    assert pseudonym(NAME) != wanted


def test_names_of_any_bytes_have_one() -> None:
    assert re.fullmatch("[0-9a-f]{12}", pseudonym(os.fsdecode(b"M\xfcller.svs")))
    assert len({pseudonym(name) for name in ("", "a", "A", "a ", "ä", os.fsdecode(b"\xfc"))}) == 6


def test_the_users_key_is_made_once_for_the_user_alone(home: Path) -> None:
    first = pseudonym(NAME)
    (folder,) = home.iterdir()
    (key,) = folder.iterdir()  # and nothing half-written beside it
    assert key == home / "persam_monai" / "pseudonym.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert len(bytes.fromhex(key.read_text())) == 32
    assert in_another_process(NAME) == first
    key.unlink()
    assert in_another_process(NAME) != first


def test_processes_that_need_a_key_at_once_get_the_same_one() -> None:
    code = f"import sys; from persam_monai.privacy import pseudonym; sys.stdin.read(1); print(pseudonym({NAME!r}))"
    words = [sys.executable, "-c", code]
    many = [subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    for process in many:
        assert process.stdin is not None
        process.stdin.close()  # all go on together
    assert len({process.stdout.read() for process in many if process.stdout} | {pseudonym(NAME) + "\n"}) == 1
    assert [process.wait() for process in many] == [0] * 4


def test_a_key_that_another_process_has_made_meanwhile_stays(home: Path) -> None:
    place = privacy.key_file()
    assert place is not None
    place.parent.mkdir(parents=True)
    place.write_text("theirs")
    privacy._make_key(place)
    assert place.read_text() == "theirs"
    assert list(place.parent.iterdir()) == [place]


@pytest.mark.parametrize("why", ["no home", "a file in the way", "an empty key"])
def test_without_a_place_for_a_key_pseudonyms_hold_for_the_run_and_its_workers(
    home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, why: str
) -> None:
    if why == "no home":
        monkeypatch.delenv("XDG_CONFIG_HOME")
        monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    elif why == "a file in the way":
        home.write_text("mine")
    else:
        (home / "persam_monai").mkdir(parents=True)
        (home / "persam_monai" / "pseudonym.key").touch()
    first = pseudonym(NAME)
    assert pseudonym(NAME) == first
    for method in ("fork",) if why == "no home" else ("fork", "spawn"):  # a spawned one would have a home again
        with multiprocessing.get_context(method).Pool(1) as pool:
            assert pool.apply(pseudonym, (NAME,)) == first
    warnings = [record.getMessage() for record in caplog.records]
    assert len(warnings) == (0 if why == "no home" else 1)
    assert all("PERSAM_PSEUDONYM_KEY" in text and "pseudonym.key" in text for text in warnings)


def test_names_in_a_text_give_way_to_their_pseudonyms() -> None:
    path = f"/data/{NAME}"
    text = f"Slide {path} is damaged ({NAME}); {path}."
    assert hide(text, [NAME, path, ""]) == (
        f"Slide {pseudonym(path)} is damaged ({pseudonym(NAME)}); {pseudonym(path)}."
    )
    assert hide("nothing", []) == "nothing"


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """What a file behind the root logger gets at any level."""
    monkeypatch.setattr(logging, "_logRecordFactory", logging.LogRecord)
    keep_errors_off_logs()
    keep_errors_off_logs()
    stream, root = io.StringIO(), logging.getLogger()
    monkeypatch.setattr(root, "handlers", [logging.StreamHandler(stream)])
    before = root.level
    root.setLevel(logging.DEBUG)
    yield stream
    root.setLevel(before)


def fail(engine: Engine, batch: int) -> None:
    try:
        raise ValueError(f"{NAME} has 48213.7")
    except ValueError as error:
        raise UserError(f"Slide {NAME} is damaged.\nTake it out.") from error


def test_engines_do_not_log_what_an_error_says(logged: io.StringIO) -> None:
    engine = Engine(fail)
    with pytest.raises(UserError, match="MILLER"):
        engine.run([0], max_epochs=1)
    text = logged.getvalue()
    assert "terminating due to exception: UserError (its message is not logged)" in text
    assert "MILLER" not in text
    assert "Take it out" not in text


def test_tracebacks_in_logs_have_places_and_no_messages(logged: io.StringIO) -> None:
    engine = Engine(fail)
    handler = StatsHandler(iteration_log=False, epoch_log=False, name="someones.statistics")
    handler.logger.propagate = True
    handler.logger.handlers.clear()
    handler.attach(engine)
    with pytest.raises(UserError):
        engine.run([0], max_epochs=1)
    text = logged.getvalue()
    assert "Exception: UserError (its message is not logged)" in text
    assert "in fail" in text  # the function of the traceback
    assert "MILLER" not in text
    assert "48213.7" not in text


def test_causes_and_representations_are_kept_off_too(logged: io.StringIO) -> None:
    try:
        fail(Engine(fail), 0)
    except UserError as error:
        logging.getLogger("someone").warning("failed: %r because of %s", error, error.__cause__)
    text = logged.getvalue()
    assert "MILLER" not in text
    assert "48213.7" not in text
    assert "failed: UserError" in text
    assert "because of ValueError" in text


def test_other_messages_stay_as_they_are(logged: io.StringIO) -> None:
    someone = logging.getLogger("someone")
    someone.info("epoch %d of %s", 1, "9")
    someone.warning(ValueError("boom"))
    try:
        raise SystemExit(1)
    except SystemExit:
        someone.info("1 of 12 slides")
    try:
        raise KeyError("x")
    except KeyError:
        someone.info("fold %d", 3)
    assert logged.getvalue() == "epoch 1 of 9\nboom\n1 of 12 slides\nfold 3\n"


def test_a_message_that_does_not_fit_its_arguments_is_left_to_the_handlers(logged: io.StringIO) -> None:
    try:
        raise ValueError("x")
    except ValueError:
        record = logging.getLogger("someone").makeRecord("someone", logging.INFO, "f", 1, "%d slides", ("many",), None)
    assert (record.msg, record.args) == ("%d slides", ("many",))


def test_a_record_from_elsewhere_can_be_made(logged: io.StringIO) -> None:
    record = logging.makeLogRecord({"name": "someone", "msg": "%d slides", "args": (3,), "levelno": logging.INFO})
    logging.getLogger("someone").handle(record)
    assert logged.getvalue() == "3 slides\n"


@pytest.mark.parametrize("name", ["tifffile", "PIL.TiffImagePlugin"])
def test_what_slide_libraries_say_of_a_file_is_not_logged(logged: io.StringIO, name: str) -> None:
    logging.getLogger(name).warning("<tifffile.TiffFile %r> has the tag %s", "S21-4711.svs", "Patient MILLER")
    text = logged.getvalue()
    assert text
    assert "S21-4711" not in text
    assert "MILLER" not in text
