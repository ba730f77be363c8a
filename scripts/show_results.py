# SPDX-License-Identifier: Apache-2.0
"""Show where the files of a training are and how good its test predictions were."""

from __future__ import annotations

import argparse
import sys

from persam_monai.errors import UserError
from persam_monai.summary import summarise


def main() -> None:
    """Parse the arguments and print the summary."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output_dir", help="the output_dir of a training that was evaluated")
    parser.add_argument("others", nargs="*", help="others on the same test fold, to compare with")
    asked = parser.parse_args()
    try:
        print(summarise(asked.output_dir, *asked.others))
    except UserError as error:
        sys.exit(f"Error: {error}")


if __name__ == "__main__":
    main()
