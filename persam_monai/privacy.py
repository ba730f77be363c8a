# SPDX-License-Identifier: Apache-2.0
"""Names of slides and patients stay out of logs and trackers; where one is needed there, a keyed hash stands for it.

The key is what the environment variable ``PERSAM_PSEUDONYM_KEY`` says; else that in ``persam_monai/pseudonym.key`` in
the user's config folder (XDG base directories), which is made at first use; else, for a user without a home or one that
cannot be written, a random one of this process and those that it starts. Whoever has the key can tell whether a
pseudonym is that of a name they know, so it stays where the data are.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import multiprocessing
import os
import secrets
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

logger = logging.getLogger(__name__)

KEY_VARIABLE = "PERSAM_PSEUDONYM_KEY"
DIGITS = 12  # hexadecimal: among a million names, the odds are 560 to 1 that no two share a pseudonym

# What these log tells names and labels of the files that they read, such as a tag's text.
SLIDE_LIBRARIES = frozenset({"PIL", "cucim", "imagecodecs", "openslide", "tifffile"})


def pseudonym(text: str) -> str:
    """A keyed hash (HMAC-SHA-256, shortened) that stands for a name where the name may not.

    Args:
        text: a slide as the table names it, a path, a patient, …

    Returns:
        12 hexadecimal digits: the same for the same text and key, in whatever process.
    """
    return hmac.new(_key(), text.encode("utf-8", "surrogatepass"), "sha256").hexdigest()[:DIGITS]


def hide(text: str, names: Iterable[str]) -> str:
    """``text`` with the pseudonym of each name in its place; a name within another one gives way to the longer."""
    for name in sorted(filter(None, names), key=len, reverse=True):
        text = text.replace(name, pseudonym(name))
    return text


def key_file() -> Path | None:
    """Where the user's key is kept; ``None`` for a user without a home, such as a container's."""
    home = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    return None if home.startswith("~") else Path(home) / "persam_monai" / "pseudonym.key"


def keep_errors_off_logs() -> None:
    """Keep what errors say, which may be a cell of the table or a slide's name, out of every log of this process.

    Whatever logger, handler or file a record is for: where it repeats the message of the error that is being handled,
    or brings its traceback, the error's kind and the places in the code are left. What the slide libraries say of a
    file is left out altogether. The screen still has it all, once the error ends the program.
    """
    make = logging.getLogRecordFactory()
    if not isinstance(make, _Discreet):
        logging.setLogRecordFactory(_Discreet(make))


class _Discreet:
    """Makes log records that do not say what errors say."""

    def __init__(self, make: Callable[..., logging.LogRecord]) -> None:
        self.make = make

    def __call__(self, *args: object, **kwargs: object) -> logging.LogRecord:
        record = self.make(*args, **kwargs)
        logged = record.exc_info[1] if isinstance(record.exc_info, tuple) else None
        if str(record.name).partition(".")[0] in SLIDE_LIBRARIES:  # a record made for another to fill in has no name
            record.msg, record.args = "A note on a file; its text is not logged, for it may hold names.", None
        elif (handled := sys.exc_info()[1]) is not None or logged is not None:
            with suppress(TypeError, ValueError, KeyError):  # of a message that does not fit its arguments
                record.msg, record.args = _without_words_of([*_chain(handled), *_chain(logged)], record), None
        if logged is not None:
            record.exc_info, record.exc_text = None, _places(logged)
        return record


def _without_words_of(errors: Iterable[BaseException], record: logging.LogRecord) -> str:
    text = record.getMessage()
    for error in errors:
        for words in (repr(error), str(error)):
            # The number of a SystemExit, say, may stand in any text.
            if isinstance(error, Exception) and words.strip():
                text = text.replace(words, _unsaid(error))
    return text


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and those that it came from."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _places(error: BaseException) -> str:
    """The traceback without the error's message."""
    lines = "".join(traceback.format_tb(error.__traceback__))
    return f"Traceback (most recent call last):\n{lines}{_unsaid(error)}"


def _unsaid(error: BaseException) -> str:
    return f"{type(error).__name__} (its message is not logged)"


def _key() -> bytes:
    given = os.environ.get(KEY_VARIABLE)
    if given:
        return given.encode()
    place = key_file()
    kept = None if place is None else _kept_key(place)
    # Python's own secret of a process, random, which it hands to its workers however they are started.
    return kept or hashlib.sha256(b"pseudonyms" + multiprocessing.current_process().authkey).digest()


@cache
def _kept_key(place: Path) -> bytes | None:
    """The key in a file, which is made if there is none; ``None`` if that cannot be."""
    try:
        if not place.exists():
            _make_key(place)
        found, problem = place.read_bytes().strip(), "it is empty"
    except OSError as error:
        found, problem = b"", str(error.strerror)
    if not found:
        logger.warning(
            "%s cannot be used (%s): pseudonyms will be others in the next run. Mend it, or set %s.",
            place,
            problem,
            KEY_VARIABLE,
        )
    return found or None


def _make_key(place: Path) -> None:
    """Write a random key, whole or not at all; if another process does so at the same time, the first one's stays."""
    place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    partial = place.with_name(f".{place.name}.{os.getpid()}.{secrets.token_hex(4)}.partial")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(f"{secrets.token_hex(32)}\n")
        with suppress(FileExistsError):
            os.link(partial, place)  # unlike a rename, this replaces no key that is there by now
    finally:
        partial.unlink()
