# SPDX-License-Identifier: Apache-2.0
"""Errors written for the person who typed the command."""

from __future__ import annotations

import difflib
import io
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager


class UserError(Exception):
    """Something the user can mend: a file, a row, a column, a key.

    The message names the place, what was found, what was expected and what to do. The command line prints it alone,
    without a traceback.
    """


def did_you_mean(word: str, candidates: Iterable[str]) -> str:
    """A suggestion to append to a message about an unknown ``word``.

    Returns:
        ``' Did you mean "x"?'`` for the closest of ``candidates``, or an empty string when none is close.

    Example:
        >>> did_you_mean("max_epocs", ["max_epochs", "bag_size"])
        ' Did you mean "max_epochs"?'
    """
    by_folded = {str(candidate).casefold(): str(candidate) for candidate in candidates}
    close = difflib.get_close_matches(word.casefold(), by_folded, n=1)
    return f' Did you mean "{by_folded[close[0]]}"?' if close else ""


def raise_together(heading: str, problems: Sequence[str], shown: int = 20) -> None:
    """Raise one :class:`UserError` that lists all ``problems``; do nothing when there are none.

    Args:
        heading: what was checked, without a final colon.
        problems: one line each.
        shown: how many are printed in full; the rest are counted.

    Raises:
        UserError: if there is at least one problem.
    """
    if not problems:
        return
    lines = [f"{heading}:", *(f"  - {problem}" for problem in problems[:shown])]
    if len(problems) > shown:
        lines.append(f"  … and {len(problems) - shown} more.")
    raise UserError("\n".join(lines))


@contextmanager
def messages_of_a_script(status: int = 1) -> Iterator[None]:
    """The body of a script: a :class:`UserError` ends it with the message alone and an exit status."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a name that the terminal cannot show must not end it
    try:
        yield
    except UserError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(status)
