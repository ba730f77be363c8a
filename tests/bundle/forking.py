# SPDX-License-Identifier: Apache-2.0
"""Runs ``python -m monai.bundle …`` in a process of its own, forked from one that has imported everything already.

What a run does is what it does in a new interpreter, but for the five seconds that MONAI takes to be imported, and the
five that MLflow takes to bring each new SQLite store through the history of its tables: it gets a copy of an empty one.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import runpy
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

IMPORTED = ("monai.bundle", "mlflow", "ignite.handlers", "persam_monai.engines", "sklearn.metrics")  # first of all


class Forker:
    """Starts the forking process at the first run; it ends with this one."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None

    def run(self, words: list[str], cwd: Path) -> subprocess.CompletedProcess[str]:
        """As :func:`subprocess.run` of ``python -m monai.bundle`` and ``words``, with its output captured as text."""
        try:
            return self._run(words, cwd)
        except BaseException:  # the answer to a job that was given up would be taken for the next one's
            if self._socket is not None:
                self._socket.close()
            self._socket = None
            raise

    def _run(self, words: list[str], cwd: Path) -> subprocess.CompletedProcess[str]:
        connection = self._connected()
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            job = json.dumps({"words": words, "cwd": str(cwd), "environment": dict(os.environ)}).encode()
            connection.sendall(len(job).to_bytes(8, "little"))
            socket.send_fds(connection, [b"x"], [out.fileno(), err.fileno()])
            connection.sendall(job)
            code = int.from_bytes(_exactly(connection, 4), "little", signed=True)
            texts = []
            for file in (out, err):
                file.seek(0)
                texts.append(file.read().decode())
        return subprocess.CompletedProcess(words, code, *texts)

    def _connected(self) -> socket.socket:
        if self._socket is None:
            ours, theirs = socket.socketpair()
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(theirs.fileno())], pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL
            )
            theirs.close()
            self._socket = ours
            atexit.register(ours.close)
        return self._socket


def _exactly(connection: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size:
        part = connection.recv(size - len(found))
        if not part:
            raise EOFError
        found += part
    return found


def _serve(connection: socket.socket) -> None:
    """Fork a process for every job, one after another, until the other end is closed."""
    sys.path.pop(0)  # this file's folder, which `python -m` would not have there
    for name in IMPORTED:
        __import__(name)
    _make_stores_by_copying()
    assert threading.active_count() == 1  # a fork has none of the others
    _serve_jobs(connection)


def _make_stores_by_copying() -> None:
    import mlflow.store.db.utils as stores
    import sqlalchemy

    logging.disable()  # Alembic tells of every step
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "empty.db"
        engine = sqlalchemy.create_engine(f"sqlite:///{file}")
        stores._initialize_tables(engine)
        engine.dispose()
        empty = sqlite3.connect(file).serialize()
    logging.disable(logging.NOTSET)

    def copy(engine: sqlalchemy.Engine) -> None:
        source = sqlite3.connect(":memory:")
        source.deserialize(empty)
        with engine.connect() as target:
            store = target.connection.driver_connection
            assert isinstance(store, sqlite3.Connection)
            source.backup(store)

    stores._initialize_tables = copy


def _serve_jobs(connection: socket.socket) -> None:
    while True:
        try:
            size = int.from_bytes(_exactly(connection, 8), "little")
        except EOFError:
            return
        _, files, _, _ = socket.recv_fds(connection, 1, 2)
        job = json.loads(_exactly(connection, size))
        child = os.fork()
        if child == 0:
            connection.close()
            _become(job, files)
        for file in files:
            os.close(file)
        _, status = os.waitpid(child, 0)
        connection.sendall(os.waitstatus_to_exitcode(status).to_bytes(4, "little", signed=True))


def _become(job: dict[str, Any], files: list[int]) -> None:
    """Be the job's process, from its first line to its end."""
    for place, file in zip((1, 2), files, strict=True):
        os.dup2(file, place)
    os.chdir(job["cwd"])
    os.environ.clear()
    os.environ.update(job["environment"])
    sys.path.insert(0, job["cwd"])
    sys.argv = ["-m", *job["words"]]
    code = 1
    try:
        runpy.run_module("monai.bundle", run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
