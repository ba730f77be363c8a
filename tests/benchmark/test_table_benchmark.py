# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import subprocess
import sys

from tests.bundle.running import ROOT


def test_every_form_of_a_table_is_measured() -> None:
    words = [sys.executable, "scripts/benchmark_table.py", "--json", "--patients", "20", "--variables", "5"]
    done = subprocess.run([*words, "--repeats", "1"], cwd=ROOT, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert (found["patients"], found["variables"], found["missing"]) == (20, 5, 0.2)
    assert set(found["seconds"]) == {"comma", "semicolon", "excel", "parquet"}
    assert all(0 < seconds < 60 for seconds in found["seconds"].values())
