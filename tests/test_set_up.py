# SPDX-License-Identifier: Apache-2.0
"""What a newcomer's first commands do on a fresh machine."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest

from persam_monai.synthetic import make_cohort
from tests.bundle.running import ROOT, TRAINING, command


def clone(folder: Path) -> Path:
    """A fresh clone of what is committed."""
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)
    return folder


def test_without_a_suitable_python_the_scripts_say_what_to_install(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "scripts", tmp_path / "project" / "scripts")
    for name in ("requirements.txt", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / "project")
    tools = tmp_path / "bin"
    tools.mkdir()
    for tool in ("bash", "cat", "cksum", "dirname", "env", "mkdir", "rm"):
        found = shutil.which(tool)
        assert found
        (tools / tool).symlink_to(found)
    result = subprocess.run(
        [tools / "bash", tmp_path / "project" / "scripts" / "test.sh"],
        env={"PATH": str(tools)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 1
    assert result.stderr.startswith("Error: no Python 3.11 or newer found.")
    assert not (tmp_path / "project" / ".venv").exists()


@pytest.mark.slow
def test_the_demo_runs_in_a_fresh_clone(tmp_path: Path) -> None:
    project = clone(tmp_path / "project")
    (project / ".venv").mkdir()  # what is installed here need not be downloaded again
    subprocess.run(["cp", "-rl", ROOT / ".venv" / "lib", project / ".venv" / "lib"], stderr=subprocess.DEVNULL)
    environment = {k: v for k, v in os.environ.items() if k not in ("VIRTUAL_ENV", "NVIMGCODEC_EXTENSIONS_PATH")}
    words = ["./scripts/demo.sh", "demo", "24"]
    with subprocess.Popen(
        words,
        cwd=project,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as interrupted:
        while interrupted.poll() is None and not (extracted := list(project.glob("demo/run_*/features/**/*.h5"))):
            time.sleep(0.1)
        os.killpg(interrupted.pid, signal.SIGKILL)
    before = {file: file.stat().st_mtime_ns for file in extracted}
    result = subprocess.run(words, cwd=project, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    assert before
    assert before == {file: file.stat().st_mtime_ns for file in before}, "typed again, it goes on where it was"
    screen = result.stdout[result.stdout.rindex("Everything is in") :]
    assert "models/model.pt" in screen
    assert "inference/predictions.csv" in screen
    assert "macro AUROC, by patient" in screen
    assert "PersAM" in screen
    assert "always" in screen
    assert "nvjpeg" not in (result.stdout + result.stderr).lower()
    started = time.time()
    subprocess.run(["bash", "-c", ". scripts/environment.sh"], cwd=project, env=environment, check=True)
    assert time.time() - started < 20, "a second call must not install again"


@pytest.mark.slow
def test_the_package_installs_without_the_repository(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", tmp_path, clone(tmp_path / "project")],
        check=True,
    )
    (wheel,) = tmp_path.glob("persam_monai-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    rooms = "clinical cohort commandline data engines files handlers losses metrics model networks slides synthetic"
    code = "import persam_monai, sys\n" + "\n".join(f"persam_monai.{room}" for room in rooms.split())
    code += f"\nassert persam_monai.__file__.startswith({str(tmp_path)!r}), persam_monai.__file__"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env={**os.environ, "PYTHONPATH": "site"}, check=True)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """A real MLflow server's address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    words += [
        "--backend-store-uri",
        f"sqlite:///{tmp_path}/server.db",
        "--artifacts-destination",
        str(tmp_path / "store"),
    ]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        address = f"http://127.0.0.1:{port}"
        for _ in range(120):
            try:
                urllib.request.urlopen(f"{address}/health")
                break
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.5)
        yield address
        process.terminate()


@pytest.mark.slow
def test_training_logs_to_the_mlflow_server_that_the_environment_names(server: str, tmp_path: Path) -> None:
    make_cohort(tmp_path / "cohort", patients=15, seed=5, size=1024, workers=1)
    words = command("training", TRAINING, dataset_dir=tmp_path / "cohort", output_dir=tmp_path / "o", max_epochs=1)
    environment = {**os.environ, "MLFLOW_TRACKING_URI": server}
    subprocess.run(words, cwd=ROOT, env=environment, check=True, capture_output=True)
    client = mlflow.MlflowClient(server)
    experiment = client.get_experiment_by_name("persam")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert "val_loss" in run.data.metrics
    assert {file.path for file in client.list_artifacts(run.info.run_id)} == {"config.json", "model_description.json"}
    assert not (tmp_path / "o" / "mlflow.db").exists()
