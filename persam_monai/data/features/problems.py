# SPDX-License-Identifier: Apache-2.0
"""What is wrong with a file that cannot be opened, for the person whose file it is."""

from __future__ import annotations

import os
from pathlib import Path

from persam_monai.errors import UserError

HDF5 = b"\x89HDF\r\n\x1a\n"
ZIP = b"PK\x03\x04"  # what torch.save writes
ANEW = "Make it anew with what made it (ours: run extracting), or copy it again."


def cannot_open(path: Path, reason: object) -> UserError:
    """The error for a file of features that a library could not open or read.

    Args:
        path: the file.
        reason: what the library said.
    """
    try:
        with path.open("rb") as file:
            head = file.read(len(HDF5))
    except FileNotFoundError:
        return UserError(f"{path} does not exist; expected a file of features. Name another --features_dir.")
    except IsADirectoryError:
        return UserError(
            f"{path} is a folder; expected a file of features. Move it away, or name it as --features_dir."
        )
    except PermissionError:
        return UserError(f"{path} may not be read by you. Ask its owner for the right to read it (chmod a+r).")
    except OSError as error:
        return UserError(f"{path} cannot be read: {error.strerror or error}. Is its disk or network share in order?")
    if not head:
        return UserError(f"{path} is empty (0 bytes): whatever was to write it was ended before it did. {ANEW}")
    if path.suffix != ".pt" and head != HDF5 and _no_user_block(path):
        torch = ' It looks like a file of torch: give it the ending ".pt".' if head.startswith(ZIP) else ""
        return UserError(f"{path} is no HDF5 file (it begins with {head!r}).{torch or f' {ANEW}'}")
    if path.suffix == ".pt" and head == HDF5:
        return UserError(f'{path} is an HDF5 file, no file of torch. Give it the ending ".h5".')
    said = next(iter(str(reason).splitlines()), "").rstrip(".") or type(reason).__name__
    return UserError(f"{path} is unfinished or damaged ({said}). {ANEW}")


def _no_user_block(path: Path) -> bool:
    """Whether no HDF5 begins behind a block of somebody else's, whose size is a power of two."""
    size = os.path.getsize(path)
    with path.open("rb") as file:
        place = 512
        while place < size:
            file.seek(place)
            if file.read(len(HDF5)) == HDF5:
                return False
            place *= 2
    return True
