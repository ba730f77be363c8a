# SPDX-License-Identifier: Apache-2.0
"""What a draft says of codes that look like "not known": per variable, or once where several share them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from persam_monai.drafting.kinds import Guess
from persam_monai.drafting.unknown import Code, quoted

_SEVERAL = 2  # variables with the same code: it belongs to the table


def shared_codes(guesses: Sequence[Guess]) -> list[Code]:
    """Codes that stand in several variables, and that the schema may have for all of them (its rule S10)."""
    declared = [guess for guess in guesses if guess.declaration]
    counts = Counter(_folded(code) for guess in declared for code in guess.codes)
    spelled: dict[Code, Code] = {}
    for guess in declared:
        for code in guess.codes:
            spelled.setdefault(_folded(code), code)
    several = [spelled[code] for code, count in counts.items() if count >= _SEVERAL]
    return sorted((code for code in several if not any(_admits(guess, code) for guess in declared)), key=str)


def about_codes(guess: Guess, shared: Sequence[Code]) -> list[str]:
    """Notes on a variable's codes."""
    notes = []
    at_top = {_folded(code) for code in shared}
    above = {code: count for code, count in guess.codes.items() if _folded(code) in at_top}
    own = {code: count for code, count in guess.codes.items() if code not in above}
    if above:
        notes.append(f"{_listed(above)}: see missing_codes at the top.")
    if own:
        notes.append(
            f'{_listed(own)} looks like "not known": if so, missing_codes: {quoted(list(own))}; else '
            f"{_otherwise(guess)}. Until then it is refused."
        )
    return notes


def _otherwise(guess: Guess) -> str:
    """What to do about a code that is a value."""
    kind = guess.declaration.get("kind")
    if kind == "numeric":
        return "correct the text" if all(isinstance(code, str) for code in guess.codes) else "widen the range"
    if kind == "binary":
        return "it is a third answer: make the variable categorical, with all of them as levels"
    return "add it to the levels"


def _admits(guess: Guess, code: Code) -> bool:
    """Whether a variable's range or levels have a code as a value."""
    declaration = guess.declaration
    if isinstance(code, float) and "range" in declaration:
        low, high = declaration["range"]
        return bool(low <= code <= high)
    levels = declaration.get("levels", ("yes", "no", "y", "n", "true", "false", "1", "0"))
    return "range" not in declaration and _text(code) in {level.casefold() for level in levels}


def _folded(code: Code) -> Code:
    return code.casefold() if isinstance(code, str) else code


def _text(code: Code) -> str:
    return code.casefold() if isinstance(code, str) else f"{code:g}"


def _listed(counts: dict[Code, int]) -> str:
    return ", ".join(f"{quoted(code)} (patients: {count})" for code, count in counts.items())
