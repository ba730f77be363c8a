# SPDX-License-Identifier: Apache-2.0
"""Randomness by counter: a draw depends on what it is for, never on what was drawn before."""

from __future__ import annotations

import hashlib

import numpy as np


def generator_for(*key: int | str) -> np.random.Generator:
    """A random generator that is a pure function of ``key``.

    The same key gives the same numbers in any process, in any order and after a resume.

    Args:
        key: what the draw is for, e.g. ``(seed, slide, epoch, bag)``.

    Example:
        >>> bool(generator_for(0, "slide", 3).random() == generator_for(0, "slide", 3).random())
        True
    """
    digest = hashlib.sha256(repr(key).encode()).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "little")))
