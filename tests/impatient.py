"""``python -m tests.impatient``: a server whose parent waits 1 s for a worker that hangs, instead of 30 s.

Once it has been announced, a new worker has 3 s to accept, instead of 60 s.
"""

from __future__ import annotations

from collections.abc import Sequence
from socket import socket

from pushcompat import listening, supervisor
from pushcompat.__main__ import main
from pushcompat.config import Config

supervisor._ASK_S, supervisor._ABSENT_S, supervisor._SILENCE_S = 0.1, 0.5, 1.0
_announce = listening.announce


def announce(config: Config, sockets: Sequence[socket], admin: Sequence[socket]) -> None:
    supervisor._START_S = 3.0
    _announce(config, sockets, admin)


listening.announce = announce

if __name__ == "__main__":
    main()
