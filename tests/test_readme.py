# SPDX-License-Identifier: Apache-2.0
"""Every command that the documentation shows works as typed, at reduced size."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from persam_monai.synthetic import make_cohort
from tests.bundle.running import FORKER, ROOT, SMALL, SMALL_EXTRACTOR

PAGES = ["README", "clinical", "slides", "features", "networks", "study", "settings"]
DOCUMENTS = ["README.md", *(f"bundle/docs/{page}.md" for page in PAGES)]
SET_UP = ["./scripts/demo.sh", "./scripts/test.sh"]  # they build an environment; the slow tests run them

WIRING = """imports bundle_root settings provenance initialize training run cohort split patches patch_extractor
    description checkpoint_objects best_model mlflow_run network_def network loss card evaluate evaluating inference
    dataset dataloader inferer predictions handlers evaluator parameters work evaluation slides trained_head
    bad_slides assignment source extracting"""  # what connects a config's parts; users set others


def commands(document: str) -> list[str]:
    """The lines of a document's shell blocks."""
    blocks = re.findall(r"^```bash\n(.*?)^```", (ROOT / document).read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return [line for block in blocks for line in block.splitlines() if line not in SET_UP]


def reduced(command: str) -> list[str]:
    """The words of a command with a small network and small slides."""
    words = shlex.split(command)
    assert words[0] == "python", command
    words[0] = sys.executable
    if "--config_file" in words:
        place = words.index("--config_file") + 1
        configs = re.findall(r"[\w/]+\.json", words[place])
        configs = [str(ROOT / config) for config in configs]
        small = (
            SMALL if "training" in words and "heads/" not in command else SMALL_EXTRACTOR
        )  # a head has its own sizes
        words[place] = str([*configs, str(ROOT / small)])
    if words[1] == "scripts/make_demo_cohort.py":
        words[words.index("--size") + 1] = "512"
        words[words.index("--output") + 1] = "painted"  # the folder it names holds the test's cohort
    if words[1] == "scripts/cross_validate.py":
        words += ["--folds", "3", "--max_epochs", "1", "--val_interval", "1", "--resamples", "20"]
    if words[1].startswith("scripts/"):
        words[1] = str(ROOT / words[1])
    return words


@pytest.fixture
def newcomer(tmp_path: Path) -> Path:
    """A folder with the data that the documentation speaks of."""
    make_cohort(tmp_path / "data", patients=15, seed=2, size=1024, workers=1)
    make_cohort(tmp_path / "new_data", patients=6, seed=3, size=512, workers=1)
    shutil.copy(tmp_path / "new_data" / "slides" / "P006.tif", tmp_path / "new_data" / "slides" / "a99.svs")
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_command_of_the_documentation_works(document: str, newcomer: Path) -> None:
    for command in commands(document):
        words = reduced(command)
        if " training " in command and "--resume" not in command:
            shutil.rmtree(newcomer / words[words.index("--output_dir") + 1], ignore_errors=True)
        if words[1:3] == ["-m", "monai.bundle"]:
            result = FORKER.run(words[3:], newcomer)
        else:
            result = subprocess.run(words, cwd=newcomer, capture_output=True, text=True)
        assert result.returncode == 0, f"{command}\n{result.stdout[-2000:]}\n{result.stderr[-2000:]}"
    assert (
        not any("training" in command for command in commands(document))
        or (newcomer / "output" / "models" / "model.pt").is_file()
    )


def test_the_documentation_explains_every_setting() -> None:
    text = (ROOT / "bundle/docs/settings.md").read_text(encoding="utf-8")
    for name in ("train", "evaluate", "inference", "extract"):
        keys = json.loads((ROOT / f"bundle/configs/{name}.json").read_text())
        user_facing = [key for key in keys if key not in WIRING.split() and "#" not in key]
        assert [key for key in user_facing if f"`{key}`" not in text] == []


def test_the_generated_parts_of_the_documentation_are_up_to_date() -> None:
    done = subprocess.run([sys.executable, "scripts/write_reference.py", "--check"], cwd=ROOT, capture_output=True)
    assert done.returncode == 0, done.stderr
