# SPDX-License-Identifier: Apache-2.0
"""Files that exist whole or not at all, and files of tensors."""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from persam_monai.errors import UserError


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Write a file beside its place and rename it when it is complete.

    Args:
        path: the file's place; its folder is made.

    Yields:
        Where to write. If the block raises, nothing is left and what stood at ``path`` stays.

    Raises:
        UserError: if the file cannot be written there.

    Example:
        >>> with replacing("results/metrics.json") as partial:  # doctest: +SKIP
        ...     partial.write_text("{}")
    """
    place = Path(path)
    partial = place.with_name(f".{place.name}.{os.getpid()}.{uuid.uuid4().hex[:8]}.partial")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        os.replace(partial, place)
    except OSError as error:
        raise UserError(
            f"{place} cannot be written: {error.strerror or error}. Choose a place that you may write to and "
            "that has room."
        ) from error
    finally:
        with suppress(OSError):  # that it is not there, or may not be looked for, hides no other error
            partial.unlink()


def absolute(path: str | os.PathLike[str]) -> Path:
    """A path from the root. ``..`` leads where the file system says, through links too; a file's own link stays.

    Readers look at a link's name, not at its target's.
    """
    given = Path(path)
    if ".." in given.parts:
        given = Path(os.path.realpath(given.parent)) / given.name
    return Path(os.path.abspath(given))


def write_json(path: str | os.PathLike[str], content: Any) -> None:
    """Write ``content`` as indented JSON, whole or not at all."""
    with replacing(path) as partial:
        partial.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_tensors(path: str | os.PathLike[str], cure: str) -> Any:
    """What ``torch.save`` wrote, on the CPU; tensors and plain values only, never Python objects.

    Args:
        path: the file.
        cure: what to do if it cannot be read, a sentence for the message.
    """
    import torch  # here, because who only writes a table should not wait for it

    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # bytes that are no pickle fail in whatever way they happen to
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(f"{path} cannot be read as a file of tensors: {reason} {cure}") from error


def sha256(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
