#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Draft clinical.yaml from a cohort table, for a person to correct."""

from __future__ import annotations

import argparse
import io
import os
import sys
from pathlib import Path

from persam_monai.cohort.drafting import draft_schema
from persam_monai.errors import UserError, messages_of_a_script
from persam_monai.files import replacing


def main() -> None:
    """Parse the command line, draft, and print or write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", type=Path, help="cohort.csv, .tsv, .xlsx or .parquet, with patient_id and label")
    parser.add_argument("--output", type=Path, help="file to write, which must not be there yet; otherwise printed")
    asked = parser.parse_args()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8")  # what a shell redirects into a file is the schema, which is UTF-8
    with messages_of_a_script():
        if asked.output is not None and os.path.exists(asked.output):
            raise UserError(f"{asked.output} is there already, and is not overwritten; name another --output.")
        text = draft_schema(asked.table)
        if asked.output is None:
            print(text, end="")
            return
        with replacing(asked.output) as partial:
            partial.write_text(text, encoding="utf-8")
    print(
        f"Wrote {asked.output}: correct it, save it as clinical.yaml beside the table, then run "
        f"scripts/check_cohort.py (or check it as it is with --schema {asked.output})."
    )


if __name__ == "__main__":
    main()
