# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import errno
import fcntl
import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

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


def test_a_lock_file_is_open_to_every_user_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        lock = FileLock.take(tmp_path / "P001.h5")
    finally:
        os.umask(before)
    assert lock is not None
    assert lock.path.stat().st_mode & 0o777 == 0o666
    lock.release()


@pytest.fixture
def refuse(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path, set[int]], None]:
    """Makes the file system open a file in none of some modes, as if it were another user's; root may open any."""
    really = os.open

    def refuse_it(file: Path, modes: set[int]) -> None:
        def opened(path: Path, flags: int, *rest: int) -> int:
            if path == file and flags & os.O_ACCMODE in modes:
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            return really(path, flags, *rest)

        monkeypatch.setattr(os, "open", opened)

    return refuse_it


def test_the_lock_of_another_user_that_may_only_be_read_is_kept_to(tmp_path: Path, refuse: Any) -> None:
    file = tmp_path / "P001.h5"
    with held_elsewhere(file):
        refuse(lock_file(file), {os.O_RDWR})
        assert FileLock.take(file) is None
    lock = FileLock.take(file)  # that process is dead
    assert lock is not None
    assert lock.keeps_others_out
    with FORK.Pool(1) as pool:
        assert pool.apply(FileLock.take, (file,)) is None
    lock.release()


def test_the_lock_of_another_user_that_may_not_be_opened_counts_as_taken(tmp_path: Path, refuse: Any) -> None:
    file = tmp_path / "P001.h5"
    lock_file(file).touch()
    refuse(lock_file(file), {os.O_RDWR, os.O_RDONLY})
    assert FileLock.take(file) is None


def test_a_folder_that_may_not_be_written_is_an_error_and_not_a_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refuse: Any
) -> None:
    file = tmp_path / "P001.h5"
    refuse(lock_file(file), {os.O_RDWR})
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(UserError, match=r"cannot be written: Permission denied.*--features_dir"):
        FileLock.take(file)
