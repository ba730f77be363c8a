#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Say what a trained model is: classes, network, and what it knows of the clinical variables."""

from __future__ import annotations

import argparse
import io
import sys

from persam_monai.description import find_model, model_lines
from persam_monai.errors import UserError
from persam_monai.model import load_card


def main() -> None:
    """Parse the command line and print. The weights are not opened; only their SHA-256 is compared."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="output_dir of a training, or model.pt or model.json in its models/")
    asked = parser.parse_args()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a unit that the terminal cannot show must not end this
    try:
        print(*model_lines(load_card(find_model(asked.model))), sep="\n")
    except UserError as error:
        sys.exit(f"Error: {error}")


if __name__ == "__main__":
    main()
