# SPDX-License-Identifier: Apache-2.0
"""One MLflow run for one run of the bundle, and all that is written to it.

MLflow may be a server that many can read, so no clinical value, level, patient or slide reaches it. A run has

* parameters: the settings and the blocks of the config that have settings of their own; ``fold_assignment``
  and ``clinical_schema`` are hashes;
* metrics: losses, scores and learning rates, and the number of slides that were skipped;
* ``config.json``: the config with all overrides, with names of files and folders as they were given,
  without the bundle's metadata, which name classes, what :data:`WITHHELD` lists, and passwords in addresses;
* of a training, ``model_description.json``: see :func:`describe_for_tracking`; of an evaluation, ``metrics.json`` with
  the names of the classes, which are what was asked;
* the tag :data:`PROCESS_TAG`.

MLflow itself adds the names of run and experiment as they were given, times, the status, the place of the artefacts and
the user ``unknown``.
"""

from __future__ import annotations

import json
import logging
import os
import re
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from ignite.engine import Engine, Events
from mlflow.entities import Metric, Param, RunStatus
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID
from monai.handlers import MLFlowHandler

from persam_monai.errors import UserError
from persam_monai.handlers.running import orderly_end

logger = logging.getLogger(__name__)

PROCESS_TAG = "persam.process"  # the machine's name and the process's number: finds runs that were killed
LONGEST_PARAMETER = 500  # characters, MLflow's own limit on some servers

# Once MLflow has failed: seconds until metrics are sent again. MLflow's own retries may take minutes each time.
RETRY_AFTER = 600

WITHHELD = ("record", "slide")  # settings of an inference that name a patient or say something of one
METADATA = "_meta_"  # where MONAI keeps metadata.json in a config
DESCRIPTION_FILE = "model_description.json"
# Of model.json: numbers and names of our own, nothing from a cohort.
DESCRIBED = ("format", "persam_monai", "sha256", "epoch", "val_loss", "head", "patch_size", "mpp", "bag_size")


class MLflowRun(MLFlowHandler):
    """MONAI's MLflow handler with a run that is always new and always ends.

    MONAI's own takes up any unfinished run of the same name, and leaves the run of a crashed training RUNNING. This one
    is a context manager around the whole work: it ends FINISHED, FAILED or KILLED with it.

    A run that cannot be opened is an error. Later the work matters more than its tracking: when MLflow fails, that is a
    warning, metrics are left out for ten minutes, and whatever is sent at the end is tried once. The log file has all
    of them.

    Args:
        tracking_uri: where to log; the environment variable ``MLFLOW_TRACKING_URI`` wins.
        experiment_name: the experiment.
        run_name: name of the run.
        settings: logged as parameters, by name.
        config: logged as the artefact ``config.json``, without what may name a patient.
        parent: identifier of the run that this one is a part of.
    """

    def __init__(
        self,
        tracking_uri: str,
        experiment_name: str,
        run_name: str,
        settings: Mapping[str, Any],
        config: Mapping[str, Any],
        parent: str | None = None,
    ) -> None:
        self.parent = parent
        self._where = {"tracking_uri": tracking_uri, "experiment_name": experiment_name, "run_name": run_name}
        self.settings = dict(settings)
        self.config = dict(config)
        self._lost = 0  # values that MLflow did not take
        self._next_try = 0.0  # on the monotonic clock

    @contextmanager
    def track(self) -> Iterator[MLflowRun]:
        """Open a run for the duration of the block."""
        status = RunStatus.FAILED
        with orderly_end():
            try:
                self.open()
                yield self
                status = RunStatus.FINISHED
            except (KeyboardInterrupt, SystemExit):
                status = RunStatus.KILLED
                raise
            finally:
                if hasattr(self, "client"):
                    if self.cur_run:
                        self._send(1, self.client.set_terminated, RunStatus.to_string(status))
                    self._dispose_sqlite_store()
                if self._lost:
                    logger.warning(
                        "MLflow at %s did not take all of the run: %d values are missing.", self._address, self._lost
                    )

    @property
    def _address(self) -> str:
        """Where to log, without a password."""
        return _without_passwords(os.environ.get("MLFLOW_TRACKING_URI") or self._where["tracking_uri"])

    def attach(self, engine: Engine) -> None:
        """Log the metrics of ``engine`` after every epoch."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.epoch_completed)

    def epoch_completed(self, engine: Engine) -> None:
        """Log the metrics that have a value, and the learning rates."""
        metrics = {name: float(value) for name, value in engine.state.metrics.items()}
        for group in getattr(getattr(engine, "optimizer", None), "param_groups", []):
            metrics[f"lr_{group['name']}"] = float(group["lr"])
        self.log_metrics(metrics, engine.state.epoch)

    def log_metrics(self, metrics: Mapping[str, float | None], step: int = 0) -> None:
        """Log those of ``metrics`` that have a value (undefined ones are left out: not every store takes NaN)."""
        known = {name: value for name, value in metrics.items() if value is not None and value == value}
        if time.monotonic() < self._next_try:
            self._lost += len(known)
            return
        now = int(time.time() * 1000)
        self._send(len(known), self.client.log_batch, [Metric(name, v, now, step) for name, v in known.items()])

    def log_file(self, path: str | os.PathLike[str]) -> None:
        """Log a text file as an artefact."""
        self._send(1, self.client.log_text, Path(path).read_text(encoding="utf-8"), Path(path).name)

    def log_model(self, path: str | os.PathLike[str]) -> None:
        """Log what :func:`describe_for_tracking` leaves of a ``model.json``, as ``model_description.json``."""
        card = json.loads(Path(path).read_text(encoding="utf-8"))
        self._send(1, self.client.log_text, json.dumps(describe_for_tracking(card), indent=2) + "\n", DESCRIPTION_FILE)

    def _send(self, values: int, log: Callable[..., None], *arguments: Any) -> None:
        """Let the client log something of the run; where MLflow fails, count the values that it did not take."""
        try:
            log(self.cur_run.info.run_id, *arguments)
        except Exception as error:  # stores raise MLflow's, SQLAlchemy's and Python's own
            self._lost += values
            self._next_try = time.monotonic() + RETRY_AFTER
            logger.warning("MLflow at %s fails (%s). The run goes on.", self._address, type(error).__name__)

    def open(self) -> str:
        """Begin the run, which whoever calls this has to end.

        Returns:
            Its identifier.

        Raises:
            UserError: if MLflow cannot be reached or cannot log.
        """
        try:
            self._create_run()
            return str(self.cur_run.info.run_id)
        except Exception as error:  # stores raise MLflow's, MONAI's, SQLAlchemy's and Python's own
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise UserError(
                f"MLflow cannot log to {self._address}: {_without_passwords(reason)}. Check --tracking_uri and the "
                "environment variable MLFLOW_TRACKING_URI, which wins; the --experiment_name, which must not have been "
                "deleted; and for a database, that Python's package for it is installed."
            ) from error

    def _create_run(self) -> None:
        super().__init__(**self._where, iteration_log=False)  # not before: it makes the database at once
        self._set_experiment()
        self._fail_killed_runs()
        tags = {PROCESS_TAG: f"{socket.gethostname()} {os.getpid()}"}
        if self.parent is not None:
            tags[MLFLOW_PARENT_RUN_ID] = self.parent
        self.cur_run = self.client.create_run(self.experiment.experiment_id, run_name=self.run_name, tags=tags)
        params = [Param(name, str(value)[:LONGEST_PARAMETER]) for name, value in self.settings.items()]
        self.client.log_batch(self.cur_run.info.run_id, params=params)
        config = {name: value for name, value in self.config.items() if name not in (METADATA, *WITHHELD)}
        text = json.dumps(config, indent=2, default=str) + "\n"
        self.client.log_text(self.cur_run.info.run_id, _without_passwords(text), "config.json")

    def _fail_killed_runs(self) -> None:
        """End the runs of this machine's processes that are no more; MLflow would show them as running for ever."""
        for run in self.client.search_runs([self.experiment.experiment_id], "attributes.status = 'RUNNING'"):
            host, _, process = run.data.tags.get(PROCESS_TAG, "").rpartition(" ")
            if host == socket.gethostname() and not os.path.exists(f"/proc/{process}"):
                self.client.set_terminated(run.info.run_id, RunStatus.to_string(RunStatus.FAILED))


def _without_passwords(text: str) -> str:
    """``text`` with ``***`` for the password of every address in it."""
    return re.sub(r"(://[^/@:\s]*:)[^@/\s]+@", r"\1***@", text)


def describe_for_tracking(card: Mapping[str, Any]) -> dict[str, Any]:
    """What may be known of a model where its schema may not, of the content of ``model.json``.

    The SHA-256 of the weights, by which the model is known, how it was chosen, and its sizes; of the schema the number
    of classes and, for each group, the number of variables of each kind.
    """
    groups = card["schema"]["groups"].values()
    return {
        **{name: card[name] for name in DESCRIBED if name in card},
        "classes": len(card["schema"]["classes"]),
        "variables": [Counter(variable["kind"] for variable in group.values()) for group in groups],
    }


def local_store(output_dir: str | os.PathLike[str]) -> str:
    """The address of the SQLite database in ``output_dir``.

    MONAI's own helper percent-encodes it, and MLflow's artefacts would then stand in a folder of the encoded name.

    Raises:
        UserError: if the address would be that of another folder.
    """
    folder = os.path.abspath(str(output_dir))
    if ("?" in folder or unquote(folder) != folder) and not os.environ.get("MLFLOW_TRACKING_URI"):
        raise UserError(
            f"--output_dir {output_dir}: MLflow would read ? and % in the address of its database there as signs of an "
            "address. Choose a folder without them, or name a store with --tracking_uri."
        )
    return f"sqlite:///{folder}/mlflow.db"
