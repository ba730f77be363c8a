# SPDX-License-Identifier: Apache-2.0
"""A first schema from a cohort table, guessed column by column, for a person to correct."""

from __future__ import annotations

import math
import re
import textwrap
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from persam_monai.clinical import RESERVED_COLUMNS, CellRules
from persam_monai.clinical.cells import (
    DECIMALS,
    DOUBTFUL_SPELLINGS,
    MISSING_SPELLINGS,
    THOUSANDS,
    as_text,
    is_ambiguous,
    is_date,
    is_missing,
    number_or_none,
)
from persam_monai.cohort.leaks import MINIMUM_PATIENTS, enough_to_tell, find_leak
from persam_monai.cohort.tables import Table, read_table
from persam_monai.errors import UserError, did_you_mean, raise_together

_WIDTH = 100
_INDENT = "    "  # of a variable
_HEADING = (
    "All of it is guessed from the cells: a person who knows what the variables are has to correct it. What each key "
    "means is in bundle/docs/clinical.md; scripts/check_cohort.py reads table and schema as a training would. Nothing "
    "in here may be a result of the diagnosis, treatment, outcome or follow-up. Ranges come from the data: put the "
    "plausible ones."
)
_GROUPS = (
    "Each group becomes one token of the network. Divide the variables by where they come from, for instance into "
    "interview and blood: put a further name with a colon at the depth of record, and move variables below it."
)
_ASIDE = "Set aside; take in on purpose what belongs in, by removing the # of its line."

# What the name of a column gives away: parts of it in lower case, or whole words. Better one variable too many set
# aside, to be taken in by hand, than a patient shown in a draft.
_PERSON = re.compile(
    r"^dr\b|names?\b|namen\b|name$|surname|forename|initial(s|en)|pseudonym|telefon|telephone|phone|e-?mail|adress|address"
    r"|strasse|straße|street|plz|postleit|postcode|postal|zip ?code|wohnort|geburts|birth|\barzt|physician|doctor"
    r"|patholog(e|ist)|surgeon|clinician|nummer|aktenzeichen|accession|passport|barcode"
    r"|(case|patient|record|admission|insurance|security|specimen|sample|block|account|file)s? ?(number|num\b)"
    r"|(fall|pat|patient|patienten|aufnahme|akten|journal|histo) ?(nr|id)\b"
)
_PERSON_WORDS = frozenset({"mrn", "ssn", "nhs", "dob", "zip", "city", "town", "ort", "fax", "mail", "gebdat", "geb"})
_IDENTIFIER_WORDS = frozenset(
    {"id", "case", "number", "no", "nr", "code", "patient", "pid", "uid", "uuid", "sample", "key", "specimen", "block"}
    | {"record", "study", "fall", "file", "path", "slide"}
)
_REMARK = re.compile(r"bemerk|anmerk|kommentar|remark|comment|free ?text|freitext|notiz|\bnotes?\b")
_AFTERWARDS = re.compile(
    r"surviv|überleb|ueberleb|vital ?stat|death|deceased|verstorben|todes|gestorben|follow ?up|nachsorge|relaps|rezidiv"
    r"|recurren|progression|respon[sd]|remission|therap|treatment|behandlung|outcome|censor|mortalit|(days|months) to "
    r"|\blast (info|contact|seen|known|alive)|\b(os|pfs|dfs|efs|rfs|dss|ttp|dead|died|alive)\b"
)
_BOOKKEEPING = re.compile(
    r"(is |data |cv )?(train|training|test|validation|holdout|split|fold|partition|subset|cohort|batch)s?"
    r"( (no|nr|number|\d+))?"
)

_UNKNOWN_WORDS = frozenset(
    {"unbekannt", "keineangabe", "keineangaben", "ka", "nb", "nd", "entfällt", "fehlt", "unavailable", "unspecified"}
    | {f"nicht{what}" for what in ("erhoben", "bekannt", "bestimmt", "durchgeführt", "beurteilbar", "untersucht")}
    | {f"not{what}" for what in ("done", "recorded", "reported", "assessed", "evaluated", "determined", "tested")}
    | {f"not{what}" for what in ("applicable", "performed", "measured", "documented", "stated", "collected")}
    | {"discrepancy", "pending", "undefined", "inconnu", "desconocido", "sconosciuto", "onbekend", "notspecified"}
)
_DRESS = re.compile(r"[\s._?…\-–—−'\"`´‘’‚“”„«»\[\](){}<>/]")  # brackets, quotes, dashes, points and spaces
_UNSTAGED = re.compile(r"[cpyr]{0,2}[tnmgrlv]x", re.IGNORECASE)  # TX, pNX: not assessed
_STAINING = re.compile(r"[-–+/()<>=]+")
_CODES = (-1, -7, -8, -9, -77, -88, -99, -888, -999, -9999, 9, 77, 88, 99, 777, 888, 999, 8888, 9999)

_PERSON_CELL = re.compile(r"\b(Dr|Prof)\.|\S@\S+\.\w")
_DATE = re.compile(
    r"(\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.](\d{4}|\d{2})|\d{1,2}[ -]?[A-Za-z]{3,9}[ -]\d{4})"
    r"([T ]\d{1,2}:\d{2}.*)?"
)
_NUMBER = re.compile(
    r"(?P<sign><=|>=|[<>≤≥])?\s*(?P<number>[+-]?[0-9][0-9.,' \u00a0\u202f’]*(?:[eE][+-]?[0-9]+)?)"
    r"(?P<unit>\s*[^\W\d_%‰°][^\s\d]{1,14}|\s*[%‰°]\S{0,5}|\s+10[\^*]\S{1,12})?"
)
_NUMBERED = re.compile(
    r"(?P<prefix>(?:stage|grade|grad|stadium|who|who grade|ann arbor|ecog|level|class|[cpy]?[tnm]|g|r)?[ _-]?)"
    r"(?P<number>III|IV|II|I|V|[0-5])(?P<part>[ .]?[a-d])?",
    re.IGNORECASE,
)
_ROMAN = ("0", "I", "II", "III", "IV", "V")
_SCALES = (
    (
        *("none no absent negative keine", "minimal", "low mild weak slight niedrig gering leicht schwach"),
        *("low_intermediate", "medium moderate intermediate mittel mäßig", "high_intermediate"),
        "high severe strong hoch schwer stark",
    ),
    ("never nie", "rarely selten", "sometimes manchmal", "often oft häufig", "always immer"),
    ("- – neg negative 0", "(+) +/-", "+ 1+", "++ 2+", "+++ 3+", "++++ 4+"),
)
_RANKS = tuple({word: rank for rank, words in enumerate(scale) for word in words.split()} for scale in _SCALES)
_NEGATIVE = frozenset(
    {"no", "n", "false", "0", "nein", "non", "negative", "neg", "negativ", "absent", "normal", "-", "–", "none", "low"}
    | {"wt", "wildtype", "wild-type", "without", "ohne", "never", "nie", "not detected", "benign"}
)
_ANSWERS = frozenset({"yes", "y", "true", "1", "no", "n", "false", "0"})
_COUNT_WORDS = frozenset({"count", "counts", "number", "anzahl", "nodes", "years", "months", "days", "age"})

_FEW_VARYING = 0.05  # of the patients with several rows: slips, and no property of a slide
_MOSTLY = 0.8  # of the known cells hold a number; the others are slips or codes of missing values
_HIGHEST_GRADE = 10  # whole numbers up to it, from 0 or 1, are grades or scores; beyond, they are counted
_MOST_LEVELS = 50
_LONG, _WORDY = 60, 5  # characters of a level, words of the average one, beyond which texts are sentences
_ALONE = 0.3  # share of patients whose level nobody else has, beyond which it is no list of choices
_SKEW = 0.75  # that of an exponential distribution is 2, of a normal one 0
_MARGIN = 1.25  # beyond the data on either side: ages to 95 become a range to 120
_FRIENDLY = (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10)


@dataclass
class Guess:
    """What a column may be.

    Args:
        name: of the column.
        declaration: of the variable; empty if nothing of it is to be shown.
        values: ``[patients, numbers]`` for the search for leaks, NaN where missing.
        notes: a sentence each.
        reason: why the variable is set aside; None if it is not.
    """

    name: str
    declaration: dict[str, Any] = field(default_factory=dict)
    values: np.ndarray = field(default_factory=lambda: np.empty((0, 0)))
    notes: list[str] = field(default_factory=list)
    reason: str | None = None


def draft_schema(table: str | Path) -> str:
    """Draft a schema from a cohort table.

    Args:
        table: with the columns ``patient_id`` and ``label``.

    Returns:
        The text of a ``clinical.yaml``. Cells of columns that may name a patient, and free texts, are not in it.
    """
    content = read_table(table)
    _check_header(content)
    rows_of: dict[str, list[int]] = {}
    for index, row in enumerate(content.rows):
        rows_of.setdefault(row.text("patient_id") or f"\n{index}", []).append(index)
    groups = list(rows_of.values())
    labels, label_notes = _labels(content, groups)
    rules, certain = _number_rules(content)
    guesses = [
        _guess(content, name, groups, labels, rules)
        for name in content.columns
        if name and name not in RESERVED_COLUMNS
    ]
    kept = [guess for guess in guesses if guess.reason is None]
    if not kept:
        reasons = [f"{guess.name}: {guess.reason}" for guess in guesses] or ["there is none"]
        raise_together(f"{table}: found no column that may be a clinical variable", reasons)
    counts = Counter(label for label in labels if label is not None)
    listed = ", ".join(f"{name} {counts[name]}" for name in sorted(counts))
    lines = _comment(
        f"Drafted from {Path(table).name} ({len(content.rows)} slides, {len(groups)} patients). {_HEADING}"
    )
    if not enough_to_tell(labels):
        lines += _comment(
            f"Too few patients to tell which variables give the label away: {MINIMUM_PATIENTS} are needed."
        )
    for note in (f"Patients: {listed}. The order of the classes is free.", *label_notes):
        lines += _comment(note)
    lines.append(f"classes: {_flow(sorted(counts))}")
    if rules is not None:
        if not certain:
            lines += _comment('Every sign may be a decimal one or separate thousands. Choose, and remove the "#".')
        lines.append(f'{"" if certain else "# "}decimal: "{rules.decimal}"')
        lines += [f'thousands: "{rules.thousands}"'] if rules.thousands else []
    lines += ["groups:", *_comment(_GROUPS, "  "), "  record:"]
    for guess in kept:
        lines += [*_comment(" ".join(guess.notes), _INDENT), _INDENT + _entry(guess)]
    aside = [guess for guess in guesses if guess.reason is not None]
    lines += ["", *_comment(_ASIDE, _INDENT)] if aside else []
    for guess in aside:
        lines += _comment(f"{guess.name}: {guess.reason}. {' '.join(guess.notes)}", _INDENT)
        lines += [f"{_INDENT}# {_entry(guess)}"] if guess.declaration else []
    return "\n".join(lines) + "\n"


def unknown_among(texts: Collection[str]) -> set[str]:
    """Those of a column's texts, or of a variable's levels, that look like "not known", whatever stands around a word.

    Example:
        >>> sorted(unknown_among(["[Not Available]", "G1", "<unknown>"]))
        ['<unknown>', '[Not Available]']
    """
    words = _UNKNOWN_WORDS | {_DRESS.sub("", text) for text in (*MISSING_SPELLINGS, *DOUBTFUL_SPELLINGS)}
    if all(_STAINING.fullmatch(text) for text in texts):  # "-" beside "+" is the result of a stain, not a gap
        return set()
    return {text for text in texts if _DRESS.sub("", text.casefold()) in words or _UNSTAGED.fullmatch(text)}


def _check_header(table: Table) -> None:
    """The columns that a draft cannot do without, and no name twice."""
    counts = Counter(name for name in table.columns if name)
    problems = [f'column "{name}": is in the header {count} times' for name, count in counts.items() if count > 1]
    for name in ("patient_id", "label"):
        if name not in counts:
            hint = did_you_mean(name, [other for other in counts if other not in RESERVED_COLUMNS])
            problems.append(f'column "{name}": is missing; rename the column that has it.{hint}')
    raise_together(f"{table.path}: no schema can be drafted from the table", problems)


def _labels(table: Table, groups: Sequence[Sequence[int]]) -> tuple[list[str | None], list[str]]:
    """The label of each patient, and notes; spellings that differ in case or spaces alone are one class."""
    by_row = [row.text("label") for row in table.rows]
    unknown = {text for text in by_row if is_missing(text)} | unknown_among(set(by_row))
    counts = Counter(text for text in by_row if text not in unknown)
    chosen: dict[str, str] = {}
    for text, _ in counts.most_common():
        chosen.setdefault("".join(text.casefold().split()), text)
    spelled = {text: chosen["".join(text.casefold().split())] for text in counts}
    notes = [
        f"{other} and {name} differ in case or spaces alone: one class? Then write {name} in {counts[other]} rows."
        for other, name in spelled.items()
        if other != name
    ]
    if named := sorted(text for text in unknown if not is_missing(text)):
        notes.append(f'Labels that look like "not known": {", ".join(named)}. Leave these rows out.')
    if len(chosen) < 2:
        raise UserError(f'{table.path}, column "label": found {len(chosen)} classes; expected at least 2.')
    return [next((spelled[by_row[row]] for row in rows if by_row[row] in spelled), None) for rows in groups], notes


def _number_rules(table: Table) -> tuple[CellRules | None, bool]:
    """How most of the table's text cells write numbers, and whether that is certain; None if no sign is in them."""
    texts = [
        cell.strip()
        for row in table.rows
        for name, cell in row.cells.items()
        if isinstance(cell, str) and name not in RESERVED_COLUMNS  # 1.svs is no number
    ]
    matches = [match for match in map(_NUMBER.fullmatch, texts) if match is not None]
    numbers = [number for match in matches if re.search("[.,'’ \u00a0\u202f]", number := match["number"].strip())]
    tried = [CellRules(sign, mark) for sign in DECIMALS for mark in (None, *THOUSANDS) if mark != sign]
    numbers = [number for number in numbers if any(number_or_none(number, rules) is not None for rules in tried)]
    if not numbers:
        return None, True
    readable = [sum(number_or_none(number, rules) is not None for number in numbers) for rules in tried]
    best = tried[readable.index(max(readable))]  # the first of several that read as many
    return best, not all(map(is_ambiguous, numbers))


def _guess(
    table: Table, name: str, groups: Sequence[Sequence[int]], labels: Sequence[str | None], rules: CellRules | None
) -> Guess:
    """What a column may be, with a reason if it is set aside."""
    cells = [row.cells.get(name) for row in table.rows]
    cells = [None if is_missing(cell) else cell for cell in cells]
    by_patient = [next((cells[row] for row in rows if cells[row] is not None), None) for rows in groups]
    texts = [as_text(cell) for cell in by_patient if cell is not None]
    guess = Guess(name)
    guess.reason = _by_name(name) or _by_cells(name, by_patient, texts)
    if guess.reason:
        return guess
    guess = _of_cells(name, by_patient, rules or CellRules())
    if guess.reason:
        return guess
    varying = sum(len({as_text(cells[row]).casefold() for row in rows}) > 1 for rows in groups)
    several = sum(len(rows) > 1 for rows in groups)
    if varying and (varying < _FEW_VARYING * several or varying == 1 < several):
        guess.notes.append(f"The rows of one patient disagree (patients: {varying}): check_cohort.py names the rows.")
    elif varying:
        guess.reason = (
            f"differs between the rows of a patient (patients: {varying}), but a clinical variable belongs to the "
            "patient"
        )
    leak = find_leak(guess.values, labels)
    known_before = "Is it known before the diagnosis is, and without it? Only then take it in"
    plain = _plain_name(name)
    if leak is not None:
        guess.reason = f"SUSPECTED LEAK: {leak}. {known_before}; a model would learn to read the answer from it"
    elif _AFTERWARDS.search(plain):
        guess.reason = f"SUSPECTED LEAK by its name: treatment, outcome and follow-up come later. {known_before}"
    elif _BOOKKEEPING.fullmatch(plain):
        guess.reason = "bookkeeping of a study by its name (a split, cohort or batch), and nothing of the patient"
    return guess


def _plain_name(name: str) -> str:
    """A column's name in lower case, its words apart: ``dateOfBirth_2`` is ``date of birth 2``."""
    apart = re.sub(r"(?<=[a-zäöüß])(?=[A-ZÄÖÜ])", " ", name)
    return " ".join(re.sub(r"[\W_]+", " ", apart).casefold().split())


def _by_name(name: str) -> str | None:
    """Why a column may tell who a patient is, or be free text, by its name alone."""
    plain = _plain_name(name)
    if name.lower() in RESERVED_COLUMNS:
        return f"this name is too near to {name.lower()}; rename the column to that, or to something else"
    if _REMARK.search(plain):
        return "free text by its name; it stays out of a model"
    if _PERSON.search(plain) or _PERSON_WORDS & set(plain.split()):
        return "an identifier by its name; it stays out of a model"
    return None


def _by_cells(name: str, cells: Sequence[object], texts: Sequence[str]) -> str | None:
    """Why a column's cells are no values: none, always the same, dates, identifiers."""
    different = len({text.casefold() for text in texts})
    if not different:
        return "empty in every row"
    if different == 1:
        return f"constant: the same value wherever it is known (patients: {len(texts)} of {len(cells)})"
    if any(map(_PERSON_CELL.search, texts)):
        return "titles of persons or e-mail addresses in the cells: an identifier or free text"
    words = set(_plain_name(name).split())
    dates = sum(map(is_date, cells)) + sum(_DATE.fullmatch(text) is not None for text in texts)
    if dates > len(texts) / 2 or words & {"date", "datum", "timestamp"}:
        return "dates, which are no values; a duration or an age can be one (compute it in the table)"
    whole = sorted(int(text) for text in texts if re.fullmatch(r"\d{1,15}", text))
    if len(whole) == len(texts) == different and len(texts) > 2:
        if whole[0] >= 10**5:
            return "whole numbers of six digits or more, all different: an identifier, or declare it by hand"
        if len(whole) > 10 and whole[-1] - whole[0] == len(whole) - 1:
            return "a running number: every patient has the next one"
    measured = any(re.fullmatch(r"[+-]?\d*[.,]\d+", text) for text in texts)
    share = 0.9 if whole else 0.5  # numbers of a measurement repeat sooner or later
    if (
        words & _IDENTIFIER_WORDS
        and not measured
        and different > max(2, share * len(texts))
        and not words & _COUNT_WORDS
    ):
        return "an identifier by its name, and most patients have another value"
    return None


def _of_cells(name: str, cells: Sequence[object], rules: CellRules) -> Guess:
    """Kind, levels or range, and notes, of a column by patient."""
    texts = [None if cell is None else as_text(cell) for cell in cells]
    unknown = unknown_among({text for text in texts if text})
    texts = [None if text in unknown else text for text in texts]
    known = [text for text in texts if text is not None]
    read = [None if text is None else _NUMBER.fullmatch(text) for text in texts]
    own = [rules if isinstance(cell, str) else CellRules() for cell in cells]  # typed numbers have a point as text
    parsed = zip(read, own, strict=True)
    values = np.array(
        [np.nan if m is None else _or_nan(number_or_none(m["number"].strip(), rule)) for m, rule in parsed]
    )
    numeric = int((~np.isnan(values)).sum())
    ordered = _in_order(sorted(set(known)))
    answers = {text.casefold().removesuffix(".0") for text in known}
    if len(answers) > 1 and answers <= _ANSWERS:
        guess = _of_levels(name, texts, "binary", [])
    elif ordered is not None:
        guess = _of_levels(name, texts, "ordinal", ordered)
    elif known and numeric >= _MOSTLY * len(known):
        guess = _of_numbers(name, texts, values)
        signs = sum(match is not None and bool(match["sign"]) for match in read)
        units = Counter(match["unit"].strip() for match in read if match is not None and match["unit"])
        if signs and guess.declaration.get("kind") == "numeric":
            guess.declaration["comparisons"] = "limit"
            guess.notes.append(f"Comparison signs (patients: {signs}): limit takes <5 for 5, half takes it for 2.5.")
        if units:
            if guess.declaration.get("kind") == "numeric":
                guess.declaration["unit"] = units.most_common(1)[0][0]
            count = units.total()
            guess.notes.append(f"Cells with a unit are refused (patients: {count}): leave the numbers alone in them.")
        if strays := len(known) - numeric:
            guess.notes.append(f"Cells without a number are refused (patients: {strays}): correct them in the table.")
    else:
        guess = _of_texts(name, texts)
    if unknown and guess.declaration:
        codes = sorted(text for text in unknown if text.lower() not in DOUBTFUL_SPELLINGS)
        if codes:
            guess.declaration["missing_codes"] = codes
    missing = len(texts) - len(known)
    percent = f", {100 * missing / len(texts):.0f} %" if missing else ""
    different = len({text.casefold() for text in known})
    guess.notes.insert(0, f"Missing: {missing} of {len(texts)} patients{percent}; different values: {different}.")
    return guess


def _or_nan(number: float | None) -> float:
    return np.nan if number is None else number


def _of_levels(name: str, texts: Sequence[str | None], kind: str, levels: list[str]) -> Guess:
    """A variable with these levels, which include all that are in the cells."""
    folded = [None if text is None else text.casefold() for text in texts]
    names = sorted({text for text in folded if text is not None})
    values = np.array([[np.nan if text is None else float(text == own) for own in names] for text in folded])
    nobody = [level for level in levels if level.casefold() not in names]
    notes = [f"Nobody has {', '.join(nobody)}."] if nobody else []
    return Guess(name, {"kind": kind, **({"levels": levels} if levels else {})}, values, notes)


def _of_texts(name: str, texts: Sequence[str | None]) -> Guess:
    """Texts without an evident order; those that differ in case alone are one level."""
    spelled: dict[str, str] = {}
    for text, _ in Counter(text for text in texts if text is not None).most_common():
        spelled.setdefault(text.casefold(), text)
    counts = Counter(spelled[text.casefold()] for text in texts if text is not None)
    levels = [level for level, _ in counts.most_common()]
    if len(levels) < 2:
        return Guess(name, reason='at most one value besides what looks like "not known"')
    patients, alone = counts.total(), sum(count == 1 for count in counts.values())
    words = sum(len(text.split()) * count for text, count in counts.items()) / patients
    many = len(levels) > _MOST_LEVELS or (len(levels) > _WORDY and alone > _ALONE * patients)
    if words > _WORDY or max(map(len, levels)) > _LONG or many or len(levels) == patients > 2:
        return Guess(name, reason=f"{len(levels)} different texts, too many for levels: an identifier or free text")
    if len(levels) == 2:
        return _of_levels(name, texts, "binary", sorted(levels, key=lambda level: level.casefold() not in _NEGATIVE))
    guess = _of_levels(name, texts, "categorical", levels)
    if len(levels) > 10:
        guess.notes.append("Many levels: keep the common ones, and let the rest count as other with other: true.")
    return guess


def _of_numbers(name: str, texts: Sequence[str | None], values: np.ndarray) -> Guess:
    """Numbers: measured, counted, or codes of levels."""
    codes = _suspected_codes(values[~np.isnan(values)])
    values = np.where(np.isin(values, codes), np.nan, values)
    known = values[~np.isnan(values)]
    found = sorted(set(known.tolist()))
    texts = [None if np.isnan(value) else text for text, value in zip(texts, values, strict=True)]
    whole = all(value.is_integer() and value >= 0 for value in found)
    counted = _COUNT_WORDS & set(_plain_name(name).split())
    if len(found) < 2:
        guess = Guess(name, reason="constant: the same number wherever it is known")
    elif whole and len(found) == 2 and found[1] < 10:
        guess = _of_levels(name, texts, "binary", [] if found == [0, 1] else [f"{value:g}" for value in found])
    elif whole and not counted and found[0] <= 1 and found[-1] <= _HIGHEST_GRADE:
        levels = [str(value) for value in range(int(found[0]), int(found[-1]) + 1)]
        guess = _of_levels(name, texts, "ordinal", levels)
    else:
        logarithmic = _looks_logarithmic(known)
        declaration: dict[str, Any] = {"kind": "numeric", "range": list(plausible_range(known, logarithmic))}
        declaration |= {"transform": "log"} if logarithmic else {}
        guess = Guess(name, declaration, values[:, None])
    if codes:
        listed = ", ".join(f"{code:g}" for code in codes)
        guess.notes.append(
            f'{listed} looks like "not known": if so, add missing_codes: [{listed}]; else widen the range or the '
            "levels. Until then it is refused."
        )
    return guess


def _suspected_codes(values: np.ndarray) -> list[float]:
    """Values of ``_CODES`` that stand apart from the others: negative among none, or beyond a wide gap."""
    found: list[float] = []
    negative = values[values < 0]
    rest = values
    if len(negative) and set(negative.tolist()) <= set(_CODES) and (values >= 0).sum() >= 5:
        found += sorted(set(negative.tolist()))
        rest = values[values >= 0]
    while len(rest) and rest.max() in _CODES:
        others = rest[rest < rest.max()]
        if len(others) < 5 or rest.max() - others.max() <= np.ptp(others) or np.ptp(others) == 0:
            break
        found.append(float(rest.max()))
        rest = others
    return found


def _in_order(levels: Sequence[str]) -> list[str] | None:
    """The levels, lowest first, with numbered ones that nobody has in between; None if no order is evident."""
    if len(levels) < 3:
        return None
    words = [re.sub(r"[\s_-]+", "_", level.casefold()) if len(level) > 2 else level.casefold() for level in levels]
    for ranks in _RANKS:
        known = [ranks[word] for word in words if word in ranks]
        if len(known) == len(set(known)) == len(levels):
            return [level for _, level in sorted(zip(known, levels, strict=True))]
    matches = [match for match in map(_NUMBERED.fullmatch, levels) if match is not None]
    if len(matches) < len(levels) or len({match["prefix"].casefold() for match in matches}) > 1:
        return None
    romans = [match["number"].upper() in _ROMAN[1:] for match in matches]
    if not any(romans) and not matches[0]["prefix"] and not any(match["part"] for match in matches):
        return None  # plain numbers are judged as numbers
    if any(romans) and not all(roman or match["number"] == "0" for roman, match in zip(romans, matches, strict=True)):
        return None  # I and 2 in one column
    numbers = [_ROMAN.index(n.upper()) if n.upper() in _ROMAN else int(n) for n in (m["number"] for m in matches)]
    if any(match["part"] for match in matches):
        ranks_of = [(number, (match["part"] or "").casefold()) for number, match in zip(numbers, matches, strict=True)]
        return [level for _, level in sorted(zip(ranks_of, levels, strict=True))]
    by_number = dict(zip(numbers, levels, strict=True))
    spelling = _ROMAN if any(romans) else tuple(map(str, range(6)))
    return [by_number.get(n, matches[0]["prefix"] + spelling[n]) for n in range(min(numbers), max(numbers) + 1)]


def plausible_range(values: np.ndarray, positive: bool = False) -> tuple[float, float]:
    """Friendly ends that leave room around the data; 0 below data that are never negative.

    Example:
        >>> plausible_range(np.array([18.0, 95.0]))
        (0.0, 120.0)
    """
    low, high = float(values.min()), float(values.max())
    if positive:  # half of a limit of detection is within the range
        return _friendly(low / 2, down=True), _friendly(high * _MARGIN)
    return -_friendly(-low * _MARGIN) if low < 0 else 0.0, _friendly(high * _MARGIN) if high > 0 else float(low == 0)


def _looks_logarithmic(values: np.ndarray) -> bool:
    """Whether positive values trail off to the right, and less so after taking logarithms."""
    if len(values) < 10 or values.min() <= 0:
        return False
    skew, chance = _skew(values), 2 * math.sqrt(6 / len(values))  # twice a normal sample's standard deviation
    return skew > max(_SKEW, chance) and abs(_skew(np.log(values))) < skew / 2


def _skew(values: np.ndarray) -> float:
    spread = values.std()
    return float(((values - values.mean()) ** 3).mean() / spread**3) if spread > 0 else 0.0


def _friendly(number: float, down: bool = False) -> float:
    """The next positive number up, or down, that people would write."""
    power = 10.0 ** math.floor(math.log10(number))
    numbers = [float(f"{step * power:.6g}") for step in (0.8, *_FRIENDLY, 12)]  # the logarithm may be rounded
    if down:
        return max(friendly for friendly in numbers if friendly <= number * (1 + 1e-12))
    return min(friendly for friendly in numbers if friendly >= number * (1 - 1e-12))


def _entry(guess: Guess) -> str:
    """A variable on one line of YAML."""
    return f"{_flow(guess.name)}: {_flow(guess.declaration)}"


def _flow(value: object) -> str:
    """A mapping, list or text as YAML on one line."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    if isinstance(value, float):
        return np.format_float_positional(value, trim="-")  # YAML takes 1e-07 for a text
    dumped = yaml.safe_dump([value], default_flow_style=True, width=math.inf, allow_unicode=True)
    return str(dumped).strip()[1:-1]


def _comment(text: str, indent: str = "") -> list[str]:
    """Lines of a comment, wrapped."""
    text = "".join(character if character.isprintable() else " " for character in text)  # YAML admits no others here
    start = f"{indent}# "
    return textwrap.wrap(" ".join(text.split()), _WIDTH, initial_indent=start, subsequent_indent=start)
