# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import errno
import fcntl
import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from persam_monai.engines.extraction import locks
from persam_monai.engines.extraction.locks import FileLock, lock_file
from persam_monai.errors import UserError

FORK = multiprocessing.get_context("fork")


def hold(file: Path, held: object) -> None:
    """Lock a file, say so, and keep it."""
    assert FileLock.take(file) is not None
    held.set()  # type: ignore[attr-defined]
    signal.pause()


@contextmanager
def held_elsewhere(file: Path) -> Iterator[int]:
    """Another process holds the lock of ``file``."""
    held = FORK.Event()
    process = FORK.Process(target=hold, args=(file, held))
    process.start()
    assert process.pid is not None
    assert held.wait(30)
    try:
        yield process.pid
    finally:
        process.kill()
        process.join()


def test_a_lock_keeps_others_out_until_it_is_released(tmp_path: Path) -> None:
    file = tmp_path / "new" / "P001.h5"
    lock = FileLock.take(file)
    assert lock is not None
    assert [path.name for path in file.parent.iterdir()] == [".P001.h5.lock"]
    with FORK.Pool(1) as pool:
        assert pool.apply(FileLock.take, (file,)) is None
        lock.release()
        assert list(file.parent.iterdir()) == []
        lock.release()
    assert FileLock.take(file) is not None


def test_the_lock_of_a_killed_process_is_free_again(tmp_path: Path) -> None:
    file = tmp_path / "P001.h5"
    with held_elsewhere(file) as process:
        assert FileLock.take(file) is None
        os.kill(process, signal.SIGKILL)
        os.waitid(os.P_PID, process, os.WEXITED | os.WNOWAIT)
        assert lock_file(file).exists()
        lock = FileLock.take(file)
    assert lock is not None
    lock.release()
    assert not lock_file(file).exists()


def test_a_released_lock_is_free_though_a_worker_process_has_inherited_it(tmp_path: Path) -> None:
    file = tmp_path / "P001.h5"
    lock = FileLock.take(file)
    assert lock is not None
    worker = FORK.Process(target=signal.pause)
    worker.start()
    try:
        lock.release()
        assert FileLock.take(file) is not None
    finally:
        worker.kill()
        worker.join()


def count(file: Path, number: Path, times: int) -> None:
    """Add to a number in a file, under the lock of another one."""
    for _ in range(times):
        lock = None
        while lock is None:
            lock = FileLock.take(file)
        number.write_text(str(int(number.read_text()) + 1))
        lock.release()


def test_no_two_processes_hold_the_lock_at_once_however_often_it_changes_hands(tmp_path: Path) -> None:
    number = tmp_path / "number"
    number.write_text("0")
    processes = [FORK.Process(target=count, args=(tmp_path / "P001.h5", number, 200)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert number.read_text() == "600"
    assert [path.name for path in tmp_path.iterdir()] == ["number"]


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_told_of_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, number: int
) -> None:
    def flock(descriptor: int, how: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    monkeypatch.setattr(locks, "_warned", threading.Event())
    with caplog.at_level(logging.WARNING):
        taken = [FileLock.take(tmp_path / name) for name in ("a.h5", "b.h5", "a.h5")]
    assert None not in taken
    assert len(caplog.records) == 1
    for lock in taken:
        assert lock is not None
        lock.release()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file/\.P001\.h5\.lock cannot be written.*--features_dir"):
        FileLock.take(tmp_path / "file" / "P001.h5")
