"""Opens the database, and decides whether its contents still match what clients have received: if not, it gets a new
epoch.

A sequence number must never be given twice within an epoch, and no acknowledged message may be missing from it.
``why_new_epoch`` decides whether that is guaranteed, by:

- ``boot``, the kernel's boot id, and ``clean``, which the last process sets when it stops. If the machine was rebooted
  without a clean stop, there was a power cut or a kernel crash: with NORMAL the last commits may be lost, with FULL
  none are.
- the mark beside the file, written after each commit and before its publishers are answered. If it has another
  epoch, or more numbers or starts than the file, then the file is a restored older copy. If it is missing, that is
  unknown. A
  start syncs its mark, so a start whose own commit was lost in a power cut is detected too.
- ``file``, the device, inode and generation: if they differ, the whole directory was restored, including the mark.

``kill -9`` needs none of these: committed data is already in the kernel.

tests/models/test_sqlite_start.py explores this with ``why_new_epoch`` itself, and shows why each part is necessary.
"""

from __future__ import annotations

import errno
import fcntl
import os
import sqlite3
import subprocess
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import NamedTuple

from ...errors import ConfigError
from ...message import Message, new_epoch
from .files import Files, Mark, Place, WriteLock, transaction

APPLICATION_ID = int.from_bytes(b"push", "big")
VERSION = 3
# The receipts of publishes with a key, and of items with an id. number: in the order of appending, never given twice
# (the trimmer leaves the last one). sequence: of the last message. lifetime_s: 0 is the configured window
_RECEIPT_TABLE = """CREATE TABLE receipt (number INTEGER PRIMARY KEY, sequence INTEGER NOT NULL,
       publisher TEXT NOT NULL, key TEXT NOT NULL, digest BLOB NOT NULL, epoch TEXT NOT NULL,
       subscribers TEXT NOT NULL, again TEXT NOT NULL, time_ms INTEGER NOT NULL, lifetime_s REAL NOT NULL)"""
# The statements that convert a database of one version to the next
MIGRATIONS: dict[int, tuple[str, ...]] = {
    1: ("ALTER TABLE receipt ADD COLUMN lifetime_s REAL NOT NULL DEFAULT 0",),
    2: (
        "ALTER TABLE receipt RENAME TO receipt_2",
        _RECEIPT_TABLE,
        """INSERT INTO receipt SELECT sequence, sequence, publisher, key, digest, epoch, subscribers, '[]', time_ms,
           lifetime_s FROM receipt_2""",
        "DROP TABLE receipt_2",
    ),
}
SCHEMA = (
    # No index but the sequence: one by channel makes an append cost four times as much
    """CREATE TABLE message (channel TEXT NOT NULL, data BLOB NOT NULL, json INTEGER NOT NULL, key TEXT, type TEXT,
       ttl_s REAL, spread_ms INTEGER, time_ms INTEGER NOT NULL, sequence INTEGER PRIMARY KEY)""",
    # One row. head: the highest number given when messages were deleted last (see HEAD). evicted: the highest number
    # ever evicted. The others: see why_new_epoch and trimmer
    """CREATE TABLE log (id INTEGER PRIMARY KEY CHECK (id = 1), epoch TEXT NOT NULL, head INTEGER NOT NULL,
       floor INTEGER NOT NULL, evicted INTEGER NOT NULL, trim_at INTEGER NOT NULL, trim_at_pages INTEGER NOT NULL,
       starts INTEGER NOT NULL, boot TEXT NOT NULL, clean INTEGER NOT NULL, synchronous TEXT NOT NULL,
       file TEXT NOT NULL)""",
    "CREATE TABLE floor (channel TEXT PRIMARY KEY, sequence INTEGER NOT NULL) WITHOUT ROWID",
    _RECEIPT_TABLE,
)
COLUMNS = ", ".join(Message.__struct_fields__)
# The highest number given. Writing it with each append would add a page to the WAL: a tenth of its time
HEAD = "max(head, coalesce((SELECT max(sequence) FROM message), 0))"
FULL = "FULL"

_GET_GENERATION = 0x80087601  # FS_IOC_GETVERSION of <linux/fs.h>
_LOCK_S = 20.0  # how long a start waits for others to start, stop or write


class State(NamedTuple):
    """The fields of the log's row that a start needs."""

    epoch: str
    head: int
    starts: int
    boot: str
    clean: bool
    synchronous: str
    file: str


class Started(NamedTuple):
    """``renewed``: why there is a new epoch. ``kept_as``: where a damaged file was moved to."""

    mark: Mark
    epoch: str
    renewed: str | None
    kept_as: Path | None


def why_new_epoch(state: State, boot: str, file: str, mark: Place | None) -> str | None:
    """None: the epoch is kept. ``boot`` and ``file`` are the current values; ``boot`` is empty if unknown."""
    if not state.clean and state.synchronous != FULL and (not boot or state.boot != boot):
        return "the machine was restarted without a clean stop of the server"
    if mark is None:
        return "the .mark file is missing"
    if mark.epoch != state.epoch or mark.head > state.head or mark.starts > state.starts:
        return "the file is an older copy, or belongs to another .mark file"
    if state.file != file:
        return "the file was copied or moved"
    return None


def start(files: Files) -> Started:
    """Opens or creates the log. Raises ConfigError."""
    path = files.path
    try:
        check_place(path)
        _check_owner(files)
        with closing(WriteLock(files.beside(".lock"))) as lock, lock.within(_LOCK_S):
            mark = Mark(files.beside(".mark"))
            files.beside(".bells").mkdir(mode=0o700, exist_ok=True)
            try:
                return _start(files, mark)
            except BaseException:
                mark.close()
                raise
    except sqlite3.Error as error:
        raise refusal(path, error) from None
    except TimeoutError:
        raise ConfigError(f"cannot open the log {path}: another process holds {path}.lock; stop that process") from None
    except OSError as error:
        raise refusal(path, error) from None


def refusal(path: Path, error: sqlite3.Error | OSError) -> ConfigError:
    """The error of a log that cannot be opened."""
    if isinstance(error, OSError):
        reason, full = f"{error.strerror}: {error.filename or path}", error.errno in (errno.ENOSPC, errno.EDQUOT)
    else:
        # SHMSIZE ("disk I/O error"): no room for the index of the WAL
        no_index = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_IOERR_SHMSIZE
        reason, full = str(error), no_index or primary_code(error) == sqlite3.SQLITE_FULL
    advice = "; make room on the disk, or name another file with --store" if full else ""
    return ConfigError(f"cannot open the log {path}: {reason}{advice}")


def check_place(path: Path) -> None:
    """Raises ConfigError with the reason, for which SQLite only has "unable to open database file"."""
    directory = path.parent
    if path.is_dir():
        raise ConfigError(f"{path} is a directory; name a file in it, such as {path / 'log.sqlite'}")
    if path.exists() and not path.is_file():
        raise ConfigError(f"{path} is not a regular file; set another --store")
    if not directory.is_dir():
        raise ConfigError(f"directory {directory} does not exist; create it, or set another --store")
    if not os.access(directory, os.W_OK | os.X_OK):
        raise ConfigError(f"the directory {directory} cannot be written to; make it writable, or set another --store")
    if path.exists() and not os.access(path, os.R_OK | os.W_OK):
        raise ConfigError(f"the file {path} cannot be written to; make it writable, or set another --store")


def _check_owner(files: Files) -> None:
    """Raises ConfigError if the file belongs to another program, before anything is made beside it.

    A log that is being created by another process is not read: it is empty until its mark exists.
    """
    path = files.path
    if path.exists() and path.stat().st_size and not files.beside(".mark").exists():
        with suppress(_Damaged):
            _examine(path, has_mark=False, thorough=False)


def stop(files: Files, mark: Mark) -> None:
    """Records a clean stop, if this is the last process. Everything is then synced to the disk."""
    with closing(WriteLock(files.beside(".lock"))) as lock, lock.within(_LOCK_S):
        if mark.alone() and files.path.exists():  # SQLite would create an empty file, readable by all users
            with closing(files.connect()) as connection:
                connection.execute("PRAGMA synchronous = FULL")
                connection.execute("UPDATE log SET clean = 1")


def _start(files: Files, mark: Mark) -> Started:
    alone = mark.alone()
    kept_as = None
    file = _made(files.path)
    try:
        version = _examine(files.path, has_mark=mark.read() is not None, thorough=alone)
    except _Damaged as damage:
        if not alone:
            advice = "other processes use it; stop all of them, and the next start begins a new log"
            raise ConfigError(f"the log {files.path} is damaged ({damage}), and {advice}") from None
        kept_as = _set_aside(files)
        file = _made(files.path)
        version = 0
    with closing(files.connect()) as connection:
        place, renewed = _prepare(connection, files, mark, version, alone, file)
    mark.write(place)
    mark.sync()
    mark.share()
    return Started(mark, place.epoch, renewed, kept_as)


class _Damaged(Exception):
    pass


def _examine(path: Path, has_mark: bool, thorough: bool) -> int:
    """The version of the database, 0 if there is none yet. Does not write: the file may belong to another program."""
    foreign = ConfigError(f"{path} is not a log of this server; set another --store")
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        try:
            version = _number(connection, "PRAGMA user_version")
            application = _number(connection, "PRAGMA application_id")
            if application == version == 0 and not _number(connection, "SELECT count(*) FROM sqlite_master"):
                return 0
            if application != APPLICATION_ID:
                raise foreign
            if version > VERSION:
                raise ConfigError(
                    f"the log {path} has format {version} of a newer pushcompat, this one knows up to {VERSION}; "
                    "install the newer one again, or set another --store"
                )
            if thorough and (found := connection.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
                raise _Damaged(" ".join(found.split()))
        except sqlite3.DatabaseError as error:
            code = primary_code(error)
            if code == sqlite3.SQLITE_NOTADB and not has_mark:
                raise foreign from None
            if code in DAMAGE:
                raise _Damaged(str(error)) from None
            raise
    return version


DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def primary_code(error: sqlite3.Error) -> int:
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF


def _set_aside(files: Files) -> Path:
    """Renames the database and its WAL, so that they can still be examined."""
    name = f"{files.path.name}.damaged-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}"
    for suffix in ("-wal", "-shm", ""):
        with suppress(FileNotFoundError):
            files.beside(suffix).rename(files.path.with_name(name + suffix))
    return files.path.with_name(name)


def _prepare(
    connection: sqlite3.Connection, files: Files, mark: Mark, version: int, alone: bool, file: str
) -> tuple[Place, str | None]:
    """Returns the end of the log, and the reason for a new epoch, if any."""
    if 0 < version < VERSION and not alone:
        raise ConfigError(f"the log {files.path} has an older format and is in use; stop the processes that use it")
    with transaction(connection, "BEGIN IMMEDIATE"):
        now = _boot(), file
        if version == 0:
            for statement in SCHEMA:
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(
                "INSERT INTO log VALUES (1, ?, 0, 0, 0, 0, 0, 0, ?, 0, ?, ?)",
                (new_epoch(), now[0], files.synchronous, now[1]),
            )
        for older in range(version, VERSION) if version else ():
            for statement in MIGRATIONS[older]:
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {VERSION}")
        row = connection.execute(f"SELECT epoch, {HEAD}, starts, boot, clean, synchronous, file FROM log").fetchone()
        state = State(*row)
        renewed = why_new_epoch(state, *now, mark.read()) if version else None
        epoch = new_epoch() if renewed else state.epoch
        synchronous = files.synchronous if alone else min(files.synchronous, state.synchronous, key=(FULL,).count)
        connection.execute(
            "UPDATE log SET epoch = ?, starts = starts + 1, boot = ?, clean = 0, synchronous = ?, file = ?",
            (epoch, now[0], synchronous, now[1]),
        )
    return Place(epoch, state.head, state.starts + 1), renewed


def _number(connection: sqlite3.Connection, statement: str) -> int:
    number: int = connection.execute(statement).fetchone()[0]
    return number


def _made(path: Path) -> str:
    """Creates the file if it does not exist, readable only by this user, and returns its ``identity``.

    Not while this process has the database open: closing a file releases all its locks of the process (POSIX),
    including SQLite's.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        return identity(descriptor)
    finally:
        os.close(descriptor)


def identity(descriptor: int) -> str:
    """Identifies the file, as long as it exists. An inode's number is soon reused for another file (on ext4 for the
    next one), but with another generation. The device number is omitted for tmpfs and overlayfs, where it changes with
    each mount.
    """
    status = os.fstat(descriptor)
    generation = bytes(8)
    with suppress(OSError):  # tmpfs and overlayfs have none
        generation = fcntl.ioctl(descriptor, _GET_GENERATION, generation)
    device = status.st_dev if os.major(status.st_dev) else 0
    return f"{device}:{status.st_ino}:{generation[:4].hex()}"


def _boot() -> str:
    """On Linux or macOS; empty if unknown."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    with suppress(OSError, subprocess.SubprocessError):
        asked = subprocess.run(["sysctl", "-n", "kern.bootsessionuuid"], capture_output=True, text=True, timeout=5)
        return asked.stdout.strip()
    return ""
