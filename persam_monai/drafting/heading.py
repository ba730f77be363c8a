# SPDX-License-Identifier: Apache-2.0
"""What stands above the variables of a draft."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from persam_monai.drafting.columns import Patients
from persam_monai.drafting.leaks import MINIMUM_PATIENTS, enough_to_tell
from persam_monai.drafting.text import comment, flow, scalar
from persam_monai.drafting.unknown import Code, quoted

GROUP = "record"
_GROUPS = (
    "Each group becomes one token of the network. Divide the variables by where they come from, for instance into "
    f"interview and blood: put a further name with a colon at the depth of {GROUP}, and move variables below it."
)


def heading(patients: Patients, decimal: str | None, sure: bool, codes: Sequence[Code]) -> list[str]:
    """Lines up to the group.

    Args:
        patients: the table.
        decimal: the decimal sign, or None where no number needs one.
        sure: whether the table tells it.
        codes: that look like "not known" in several variables.
    """
    lines = comment(
        f"Drafted from {patients.path.name} (slides: {patients.slides}, patients: {len(patients.labels)}). All of it "
        "is guessed from the cells: a person who knows what the variables are has to correct it. What each key means "
        "is in bundle/docs/clinical.md; scripts/check_cohort.py reads table and schema as a training would."
    )
    lines += comment("See to it that nothing in here is a result of the diagnosis, treatment, outcome or follow-up.")
    if patients.uneven:
        lines += comment(f"Rows that are not as long as the header were left out: {patients.uneven}.")
    if not enough_to_tell(patients.labels):
        lines += comment(
            f"Too few patients to tell which variables give the label away: at least {MINIMUM_PATIENTS} are needed, of "
            "classes with at least five each."
        )
    lines += [*_classes(patients), *_codes(codes)]
    if decimal is not None and not (decimal == "." and patients.point):
        if not sure:
            lines += comment(
                "Not certain: the table has numbers with a point and with a comma, or none but the likes of 1,200, "
                "which may also be thousands. Look, and correct this if need be."
            )
        lines += [f"decimal: {scalar(decimal)}"]
    return [*lines, "groups:", *comment(_GROUPS, "  "), f"  {GROUP}:"]


def _classes(patients: Patients) -> list[str]:
    counts = Counter(label for label in patients.labels if label is not None)
    unlabelled = len(patients.labels) - counts.total()
    without = f"; without a label: {unlabelled}" if unlabelled else ""
    listed = ", ".join(f"{name} {counts[name]}" for name in sorted(counts))
    lines = ["", *comment(f"Patients: {listed}{without}. The order of the classes is free.")]
    for note in patients.spellings:
        lines += comment(note)
    if patients.unknown:
        listed = ", ".join(f"{quoted(text)} (rows: {rows})" for text, rows in sorted(patients.unknown.items()))
        lines += comment(f'Labels that look like "not known": {listed}. Leave these rows out, or add them to classes.')
    return [*lines, f"classes: {flow(sorted(counts))}"]


def _codes(codes: Sequence[Code]) -> list[str]:
    """A line to take in, for codes of the whole table."""
    if not codes:
        return []
    listed = ", ".join(map(quoted, codes))
    about = f'Look like "not known", each in several variables: {listed}. If so, remove the # of the next line.'
    return [*comment(about), f"# missing_codes: {quoted(list(codes))}"]
