#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Convert a checkpoint of the paper authors' public code into a model that inference reads."""

from __future__ import annotations

import argparse
import sys

from persam_monai.conversion import convert_reference_checkpoint
from persam_monai.errors import UserError


def main() -> None:
    """Parse the command line and convert the checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("source", metavar="IN", help="checkpoint of the public code")
    parser.add_argument("output", metavar="OUT", help="weights to write, such as output/models/model.pt")
    parser.add_argument("--schema", help="clinical.yaml with the checkpoint's classes and variables, in its order")
    parser.add_argument("--mpp", type=float, default=0.25, help="µm per pixel that it was trained on")
    parser.add_argument("--patch_size", type=int, default=224, help="side of a patch in pixels")
    parser.add_argument("--bag_size", type=int, default=100, help="patches in a bag")
    parser.add_argument("--attention", choices=("balanced", "standard"), default="balanced", help="as it was trained")
    parser.add_argument("--heads", type=int, default=8, help="of the encoder, as it was trained")
    parser.add_argument("--extractor_weights", help="for a checkpoint without extractor: a path, or imagenet")
    try:
        print(convert_reference_checkpoint(**vars(parser.parse_args())))
    except UserError as error:
        sys.exit(f"Error: {error}")


if __name__ == "__main__":
    main()
