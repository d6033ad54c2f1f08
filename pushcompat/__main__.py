"""The entry point. It handles signals before anything else is imported: as process 1 of a container the kernel discards
signals without a handler, and Ctrl-C during an import would print a traceback. The server then installs its own.
"""

import os
import signal
from types import FrameType
from typing import NoReturn


def main() -> NoReturn:
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
