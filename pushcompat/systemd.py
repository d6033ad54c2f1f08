"""The interface to systemd: readiness, watchdog and socket activation (sd_notify(3), sd_listen_fds(3)).

Two environment variables and a datagram. It is our own code because no maintained library exists: ``sdnotify`` had
its last release in 2017, and ``systemd-python`` must be compiled against libsystemd.
"""

from __future__ import annotations

import os
import socket

_FIRST_DESCRIPTOR = 3
_TIMEOUT_S = 0.1  # for a manager whose queue is full


def take_sockets() -> list[int]:
    """The descriptors of the sockets that were bound for this process, once."""
    meant, count = (os.environ.pop(name, "") for name in ("LISTEN_PID", "LISTEN_FDS"))
    os.environ.pop("LISTEN_FDNAMES", None)
    if meant != str(os.getpid()) or not count.isdecimal():
        return []
    return list(range(_FIRST_DESCRIPTOR, _FIRST_DESCRIPTOR + int(count)))


class Notifier:
    """Reports the service's state. It removes its variables from the environment: they are only for this process."""

    def __init__(self) -> None:
        address = os.environ.pop("NOTIFY_SOCKET", "")
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        meant = os.environ.pop("WATCHDOG_PID", str(os.getpid()))
        limit = os.environ.pop("WATCHDOG_USEC", "")
        watched = meant == str(os.getpid()) and limit.isdecimal() and int(limit) > 0
        self.watchdog_s = int(limit) / 2e6 if self._address and watched else None  # half of it, as sd_notify(3) asks

    def ready(self) -> None:
        self._notify(b"READY=1")

    def alive(self) -> None:
        self._notify(b"WATCHDOG=1")

    def stopping(self) -> None:
        self._notify(b"STOPPING=1")

    def _notify(self, state: bytes) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.settimeout(_TIMEOUT_S)
                sock.sendto(state, self._address)
        except OSError:
            pass  # the manager no longer listens, or its queue is full
