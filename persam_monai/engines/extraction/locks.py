# SPDX-License-Identifier: Apache-2.0
"""Which process works on which file."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import threading
from contextlib import suppress
from pathlib import Path

from persam_monai.errors import UserError

logger = logging.getLogger(__name__)

NOT_SUPPORTED = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL}
# The last from NFS, which locks no file that is open for reading only.
TAKEN = {errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES, errno.EBADF}

_warned = threading.Event()


class FileLock:
    """A lock on a file that need not exist: a hidden file beside it, locked by this process.

    The kernel gives the lock back when the process ends, however it ends. Made by :meth:`take`.
    """

    def __init__(self, path: Path, descriptor: int | None) -> None:
        self.path = path
        self._descriptor = descriptor

    @property
    def keeps_others_out(self) -> bool:
        """Whether it is held, on a file system that knows locks."""
        return self._descriptor is not None

    @classmethod
    def take(cls, file: Path) -> FileLock | None:
        """Lock ``file``, whose folder is made.

        Where the file system knows no locks, that is said once and the lock keeps nobody out.

        Returns:
            ``None`` if another process has locked it, or another user's lock cannot be opened.

        Raises:
            UserError: if the folder cannot be written.
        """
        path = lock_file(file)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            while True:
                descriptor = _open(path)
                if descriptor is None or not _lock(descriptor):
                    return None
                if _is_at(descriptor, path):
                    return cls(path, descriptor)
                os.close(descriptor)  # whoever held it has removed it since it was opened
        except OSError as error:
            if error.errno in NOT_SUPPORTED:
                return cls._without(path)
            raise UserError(
                f"{path} cannot be written: {error.strerror or error}. Choose a --features_dir that you may write to."
            ) from error

    @classmethod
    def _without(cls, path: Path) -> FileLock:
        with suppress(OSError):
            path.unlink()
        if not _warned.is_set():
            _warned.set()
            logger.warning(
                "The file system of features_dir knows no locks. If several processes extract into it at the same "
                "time, they may do the same slides; the files will be right all the same."
            )
        return cls(path, None)

    def release(self) -> None:
        """Give the file back; nothing happens the second time."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is None:
            return
        with suppress(OSError):
            self.path.unlink()  # first: behind the lock's back, another process may hold it by then
        # Not by closing alone: worker processes may have inherited the descriptor.
        fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)


def lock_file(file: Path) -> Path:
    """The hidden file that is locked in the place of ``file``."""
    return file.with_name(f".{file.name}.lock")


def _open(path: Path) -> int | None:
    """Open a lock file, made if need be, so that other users can; ``None`` if another user's lets nobody in."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
    except PermissionError:
        try:
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)  # flock asks for no more
        except FileNotFoundError:
            if os.access(path.parent, os.W_OK | os.X_OK):
                return None  # it has just been removed; whoever asks again will find the place free
        except PermissionError:
            if os.path.lexists(path):
                return None
        raise
    with suppress(OSError):  # whose lock it is need not be us
        os.fchmod(descriptor, 0o666)  # the umask may have kept others out
    return descriptor


def _lock(descriptor: int) -> bool:
    """Lock an open file without waiting; close it if that fails."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except OSError as error:
        os.close(descriptor)
        if error.errno in TAKEN:
            return False
        raise


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False
