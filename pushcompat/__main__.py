"""The entry point. It handles signals before anything else is imported: as process 1 of a container the kernel discards
signals without a handler, SIGHUP would end the process, and Ctrl-C during an import would print a traceback. The server
then installs its own handlers, and a command that has none lets SIGHUP, SIGUSR1 and SIGUSR2 through again.
"""

from __future__ import annotations

import os
import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import NoReturn


def main() -> NoReturn:
    # A reload that is requested meanwhile waits until the server can serve it
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2))
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:  # a shell's background jobs ignore them
            signal.signal(number, _exit)
    # deploy/Dockerfile blocks them until here: they would be discarded during the interpreter's start too
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT, signal.SIGTERM))
    from . import cli

    cli.main()


def _exit(number: int, frame: FrameType | None) -> NoReturn:
    os._exit(128 + number)


if __name__ == "__main__":
    main()
