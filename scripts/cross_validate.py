#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Compare networks by cross-validation: every patient is tested once for each network and seed.

Options that are not listed are keys of train.json, such as --mpp 1.0 --max_epochs 20, and hold for every network.
Typed again, the study goes on where it was.

Exit status: 0 if all parts were tested, 1 otherwise.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path
from typing import Any

from fire.parser import DefaultParseValue

from persam_monai.errors import UserError, messages_of_a_script

ROOT = Path(__file__).parents[1]
CONFIGS = ROOT / "bundle" / "configs"


def main() -> None:
    """Parse the command line, run the study and print its table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--dataset_dir", required=True, help="folder with the table and clinical.yaml")
    parser.add_argument("--output_dir", type=Path, required=True, help="where parts and results go")
    parser.add_argument("--features_dir", help="folder of features; without it, slides are read")
    parser.add_argument("--networks", nargs="+", default=["persam", "late_fusion", "transformer", "image", "record"])
    parser.add_argument("--folds", type=int, default=5, help="default: 5")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], help="of trainings; default: 0")
    parser.add_argument("--learning_rates", nargs="+", type=float, default=[], help="choose among these on validation")
    parser.add_argument("--jobs", type=int, default=1, help="trainings side by side; default: 1")
    parser.add_argument("--resamples", type=int, default=1000, help="of the patients, for intervals; default: 1000")
    parser.add_argument("--recipe", type=Path, default=CONFIGS / "recipe.json", help="a config over train.json")
    asked, others = parser.parse_known_args()
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    with messages_of_a_script():
        from persam_monai.study import Study, run_study

        overrides = {"dataset_dir": str(Path(asked.dataset_dir).resolve()), **_keys(others)}
        if asked.features_dir is not None:
            overrides["features_dir"] = str(Path(asked.features_dir).resolve())
        output_dir = asked.output_dir.resolve()
        overrides.setdefault("tracking_uri", f"sqlite:///{output_dir}/mlflow.db")
        study = Study(
            CONFIGS,
            output_dir,
            tuple(asked.networks),
            tuple(asked.seeds),
            asked.folds,
            tuple(asked.learning_rates),
            asked.recipe,
            overrides,
            asked.resamples,
        )
        failed = run_study(study, asked.jobs)
    sys.exit(1 if failed else 0)


def _keys(words: list[str]) -> dict[str, Any]:
    """``--key value`` pairs, with values as MONAI's command line reads them."""
    words = [part for word in words for part in (word.split("=", 1) if word.startswith("--") else [word])]
    names, values = words[::2], words[1::2]
    wrong = [name for name in names if not name.startswith("--")]
    if wrong or len(names) != len(values):
        raise UserError(f"found {' '.join(words)}; expected pairs of --key value.")
    meant = {"true": True, "false": False, "null": None}
    return {
        name.removeprefix("--"): meant.get(value, DefaultParseValue(value))
        for name, value in zip(names, values, strict=True)
    }


if __name__ == "__main__":
    main()
