"""``python -m tests.impatient``: a server whose parent waits 1 s for a worker that hangs, instead of 30 s."""

from __future__ import annotations

from pushcompat import supervisor
from pushcompat.__main__ import main

supervisor._ASK_S, supervisor._ABSENT_S, supervisor._SILENCE_S = 0.1, 0.5, 1.0

if __name__ == "__main__":
    main()
