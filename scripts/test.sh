#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The test suite: ruff, mypy, pytest. `--all` adds the slow tests; other arguments go to pytest.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

selection=(-m "not slow")
if [ "${1:-}" = "--all" ]; then
    selection=()
    shift
fi

ruff check .
ruff format --check .
python -m mypy
python -m pytest "${selection[@]}" "$@"
