# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ignite.engine import Engine, Events
from mlflow.entities import Run
from mlflow.tracking import MlflowClient
from monai.utils import path_to_sqlite_uri

from persam_monai.errors import UserError
from persam_monai.handlers import MLflowRun, local_store
from persam_monai.handlers.mlflow_run import describe_for_tracking
from persam_monai.handlers.running import Running, stop_signals


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store without experiments: making its tables takes seconds, copying it nothing."""
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    MlflowClient(tracking_uri=path_to_sqlite_uri(str(path))).search_experiments()
    return path


@pytest.fixture
def uri(empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    return str(path_to_sqlite_uri(str(tmp_path / "mlflow.db")))


@pytest.fixture
def make(uri: str) -> Callable[..., MLflowRun]:
    def make_run(settings: dict[str, Any] | None = None, config: dict[str, Any] | None = None) -> MLflowRun:
        return MLflowRun(uri, "persam", "training", settings or {}, config or {})

    return make_run


def runs(uri: str) -> list[Run]:
    """All runs, the oldest first."""
    client = MlflowClient(tracking_uri=uri)
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    return list(client.search_runs(experiments, order_by=["attributes.start_time ASC"]))


def test_a_run_holds_parameters_metrics_rates_and_the_config(uri: str, make: Callable[..., MLflowRun]) -> None:
    config = {"bag_size": 3, "device": "$torch.device('cpu')"}
    run = make({"bag_size": 3, "long": "x" * 9000, "none": None}, config)
    engine = Engine(lambda engine, batch: None)
    engine.optimizer = SimpleNamespace(param_groups=[{"name": "head", "lr": 0.25}])
    run.attach(engine)

    @engine.on(Events.EPOCH_STARTED)
    def measure(engine: Engine) -> None:
        engine.state.metrics = {"loss": 10.0 / engine.state.epoch, "auroc": float("nan")}

    with run.track():
        engine.run([0], max_epochs=2)
    (found,) = runs(uri)
    assert found.info.status == "FINISHED"
    assert found.data.params["bag_size"] == "3"
    assert len(found.data.params["long"]) == 500
    assert found.data.metrics == {"loss": 5.0, "lr_head": 0.25}  # an undefined value is left out
    client = MlflowClient(tracking_uri=uri)
    history = client.get_metric_history(found.info.run_id, "loss")
    assert [(metric.step, metric.value) for metric in history] == [(1, 10.0), (2, 5.0)]
    artifact = client.download_artifacts(found.info.run_id, "config.json")
    assert json.loads(Path(artifact).read_text(encoding="utf-8")) == config


@pytest.mark.parametrize(
    ("error", "status"), [(None, "FINISHED"), (RuntimeError("broken"), "FAILED"), (KeyboardInterrupt(), "KILLED")]
)
def test_a_run_ends_as_the_work_does(
    uri: str, make: Callable[..., MLflowRun], error: BaseException | None, status: str
) -> None:
    run = make()
    if error is None:
        with run.track():
            assert [found.info.status for found in runs(uri)] == ["RUNNING"]
    else:
        with pytest.raises(type(error)), run.track():
            raise error
    (found,) = runs(uri)
    assert found.info.status == status
    assert found.info.end_time is not None


def test_every_run_is_a_new_run_and_leaves_living_ones_alone(uri: str, make: Callable[..., MLflowRun]) -> None:
    with make().track(), make().track():
        assert [run.info.status for run in runs(uri)] == ["RUNNING", "RUNNING"]
    assert [run.info.status for run in runs(uri)] == ["FINISHED", "FINISHED"]
    with make().track():
        pass
    assert len({run.info.run_id for run in runs(uri)}) == 3


def test_the_environments_store_wins(
    uri: str, make: Callable[..., MLflowRun], empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(empty_store, tmp_path / "other.db")
    other = path_to_sqlite_uri(str(tmp_path / "other.db"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", other)
    with make().track():
        pass
    assert len(runs(other)) == 1
    assert runs(uri) == []


def test_nothing_is_written_before_the_work_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    MLflowRun(path_to_sqlite_uri(str(tmp_path / "new" / "mlflow.db")), "persam", "training", {}, {})
    assert list(tmp_path.iterdir()) == []


def test_runs_of_killed_processes_are_failed_by_the_next_one(uri: str, make: Callable[..., MLflowRun]) -> None:
    with make().track():
        pass
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("persam").experiment_id
    here = socket.gethostname()
    made = {
        "killed": {"persam.process": f"{here} {dead.pid}"},
        "alive": {"persam.process": f"{here} {os.getpid()}"},
        "elsewhere": {"persam.process": f"another-machine {dead.pid}"},
        "foreign": {},
    }
    for name, tags in made.items():
        client.create_run(experiment, run_name=name, tags=tags)
    with make().track():
        pass
    statuses = {run.info.run_name: run.info.status for run in runs(uri)}
    running = dict.fromkeys(("alive", "elsewhere", "foreign"), "RUNNING")
    assert statuses == {"killed": "FAILED", **running, "training": "FINISHED"}


def test_a_run_stopped_by_sigterm_is_killed(uri: str, make: Callable[..., MLflowRun]) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit), make().track():
        os.kill(os.getpid(), signal.SIGTERM)
    assert [run.info.status for run in runs(uri)] == ["KILLED"]
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_stop_that_python_loses_ends_the_run_after_the_batch(uri: str, make: Callable[..., MLflowRun]) -> None:
    batches = []

    def step(engine: Engine, batch: int) -> None:
        batches.append(batch)
        if batch == 1:
            with suppress(SystemExit):  # as in a hook that runs while a process forks
                os.kill(os.getpid(), signal.SIGTERM)

    engine = Engine(step)
    Running("Training").attach(engine)
    with pytest.raises(SystemExit) as caught, make().track():
        engine.run(range(4))
    assert caught.value.code == 128 + signal.SIGTERM
    assert batches == [0, 1]
    assert [run.info.status for run in runs(uri)] == ["KILLED"]
    assert stop_signals == []  # what comes afterwards is not stopped by what is over


def test_a_run_that_cannot_log_its_config_is_not_left_running(
    uri: str, make: Callable[..., MLflowRun], tmp_path: Path
) -> None:
    (tmp_path / "mlruns").write_text("a file where the artefacts' folder should be")
    with pytest.raises(UserError, match=r"mlruns.*--tracking_uri"), make().track():
        pass
    assert [run.info.status for run in runs(uri)] == ["FAILED"]


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("nonsense://store", "nonsense"),
        ("file:{folder}/mlruns", "sqlite"),
        ("sqlite:///{folder}/garbage.db", "not a database"),
        ("sqlite:////proc/none/m.db", "/proc/none"),
        ("sqlite:///{folder}/mlflow.db", "deleted"),
    ],
)
def test_a_store_that_cannot_be_opened_is_named_with_reason_and_cure(
    address: str, reason: str, uri: str, tmp_path: Path
) -> None:
    client = MlflowClient(tracking_uri=uri)
    client.delete_experiment(client.create_experiment("persam"))
    (tmp_path / "garbage.db").write_text("no database")
    address = address.format(folder=tmp_path)
    tracking = MLflowRun(address, "persam", "training", {}, {})
    with pytest.raises(UserError, match=re.escape(address)) as caught, tracking.track():
        pass
    assert [part for part in (reason, "--tracking_uri", "--experiment_name") if part not in str(caught.value)] == []


def test_a_store_that_cannot_be_opened_is_named_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nonsense://me:secret@host/db")
    with pytest.raises(UserError) as caught, MLflowRun("x", "persam", "training", {}, {}).track():
        pass
    assert "nonsense://me:***@host/db" in str(caught.value)
    assert "secret" not in str(caught.value)


def rename_metrics(tmp_path: Path, before: str, after: str) -> None:
    """Take the store's table of metrics away, or give it back."""
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as connection:
        connection.execute(f"ALTER TABLE {before} RENAME TO {after}")


def test_a_store_that_fails_is_left_alone_for_some_minutes_and_the_run_goes_on(
    uri: str,
    make: Callable[..., MLflowRun],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with make().track() as run:
        run.log_metrics({"loss": 4.0}, 1)
        rename_metrics(tmp_path, "metrics", "gone")
        run.log_metrics({"loss": 3.0, "auroc": 0.5}, 2)
        rename_metrics(tmp_path, "gone", "metrics")
        run.log_metrics({"loss": 2.0}, 3)  # not tried: too early
        monkeypatch.setattr("persam_monai.handlers.mlflow_run.time.monotonic", lambda: 1e12)
        run.log_metrics({"loss": 1.0}, 4)
    (found,) = runs(uri)
    assert found.info.status == "FINISHED"
    history = MlflowClient(tracking_uri=uri).get_metric_history(found.info.run_id, "loss")
    assert sorted((point.step, point.value) for point in history) == [(1, 4.0), (4, 1.0)]
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == 2  # when it fails, and at the end
    assert "3 values" in warnings[-1]


def test_passwords_do_not_reach_the_artefact(tmp_path: Path) -> None:
    config = {"tracking_uri": "postgresql://me:secret@host/db"}
    with MLflowRun(local_store(tmp_path), "persam", "training", {}, config).track() as tracking:
        run_id = tracking.cur_run.info.run_id
    artefact = Path(MlflowClient(local_store(tmp_path)).download_artifacts(run_id, "config.json"))
    assert json.loads(artefact.read_text()) == {"tracking_uri": "postgresql://me:***@host/db"}


def artefact(uri: str, name: str) -> str:
    """An artefact of the only run."""
    (found,) = runs(uri)
    return Path(MlflowClient(tracking_uri=uri).download_artifacts(found.info.run_id, name)).read_text(encoding="utf-8")


def test_the_config_is_logged_without_what_names_patients_or_classes(uri: str, make: Callable[..., MLflowRun]) -> None:
    config = {"slide": "miller.svs", "record": {"age": 61}, "_meta_": {"channel_def": {"0": "DLBCL"}}, "fold": 1}
    with make(config=config).track():
        pass
    assert json.loads(artefact(uri, "config.json")) == {"fold": 1}


CARD = {
    "format": 1,
    "sha256": "ab12",
    "schema": {
        "classes": ["DLBCL", "FL"],
        "groups": {
            "interview": {
                "age": {"kind": "numeric", "range": [0, 120]},
                "sex": {"kind": "categorical", "levels": ["female", "male"]},
                "weight": {"kind": "numeric"},
            },
            "blood": {"ldh": {"kind": "numeric"}},
        },
    },
    "statistics": {"age": {"median": 63.0}},
    "head": {"class": "PersAMHead", "width": 32},
    "mpp": 0.25,
    "patch_size": 224,
    "bag_size": 100,
    "settings": {"fold_assignment": "0123abcd"},
}


def test_of_a_model_only_hash_settings_and_sizes_are_logged(
    uri: str, make: Callable[..., MLflowRun], tmp_path: Path
) -> None:
    wanted = {
        "format": 1,
        "sha256": "ab12",
        "head": {"class": "PersAMHead", "width": 32},
        "mpp": 0.25,
        "patch_size": 224,
        "bag_size": 100,
        "classes": 2,
        "variables": [{"numeric": 2, "categorical": 1}, {"numeric": 1}],
    }
    assert describe_for_tracking(CARD) == wanted
    (tmp_path / "model.json").write_text(json.dumps(CARD))
    with make().track() as run:
        run.log_model(tmp_path / "model.json")
    assert json.loads(artefact(uri, "model_description.json")) == wanted


@pytest.mark.parametrize("name", ["my output", "Müller", "run #1", "100 %"])
def test_everything_stays_in_the_folder_whatever_its_name(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    with MLflowRun(local_store(folder), "persam", "training", {}, {}).track():
        pass
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert list((folder / "mlruns").rglob("config.json"))


@pytest.mark.parametrize("name", ["what?x", "50%20"])
def test_a_folder_whose_address_is_anothers_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(UserError, match=rf"--output_dir .*{re.escape(name)}.*--tracking_uri"):
        local_store(tmp_path / name)
