# SPDX-License-Identifier: Apache-2.0
# Sourced by demo.sh and test.sh: makes .venv when it is missing or out of date, and puts it on the PATH.

cd "$(dirname "${BASH_SOURCE[0]}")/.."

find_python() {
    local candidate
    for candidate in "${PYTHON:-python3.11}" python3.11 python3.12 python3.13 python3.14 python3; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    echo "Error: no Python 3.11 or newer found. Install one (for example: apt install python3.11 python3.11-venv)," \
        "or name it: PYTHON=/path/to/python3.11 $0" >&2
    return 1
}

# The stamp holds what was installed; an interrupted install leaves none, so that the next call begins anew.
wanted=$(cat requirements.txt pyproject.toml | cksum)
if [ ! -x .venv/bin/python ] || [ "$(cat .venv/installed 2>/dev/null)" != "$wanted" ]; then
    python=$(find_python) || exit 1
    echo "Setting up .venv with $("$python" --version) (about two minutes, once) ..."
    rm -f .venv/installed
    "$python" -m venv .venv || {
        echo "Error: $python cannot make a virtual environment. On Debian and Ubuntu: apt install python3-venv." >&2
        exit 1
    }
    .venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
    echo "$wanted" > .venv/installed
fi
export PATH="$PWD/.venv/bin:$PATH"

# Without a GPU, cuCIM's nvImageCodec complains about each CUDA library that it does not find; JPEG slides read anyway.
if ! command -v nvidia-smi > /dev/null; then
    mkdir -p .venv/no-extensions
    export NVIMGCODEC_EXTENSIONS_PATH="$PWD/.venv/no-extensions"
fi

export MLFLOW_DISABLE_TELEMETRY="${MLFLOW_DISABLE_TELEMETRY:-true}" # MLflow would tell its makers that it is used
