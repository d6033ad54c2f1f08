"""What setup.cfg cannot say: the description, and the compiled build. With PUSHCOMPAT_COMPILE=1 the hot modules are
compiled by mypyc, to C.

    PUSHCOMPAT_COMPILE=1 pip install .

needs a C compiler and Python's headers. Without the variable the package is pure Python.
docs/architecture.md says why, under "The compiled build".
"""

import os
import re
import sys
from configparser import ConfigParser
from pathlib import Path

from setuptools import setup

# What runs for each request, message and delivery. The rest gains nothing, or cannot be compiled: hub/states has an
# IntEnum, hub/selector a class that inherits from the standard library, hub/pending, wire/chunk and wire/item have
# structs of msgspec, and a thread of logs would crash the process at its end.
COMPILED = {
    "access": [
        "access", "credentials", "grant", "keys", "named_key", "origins", "patterns", "proxies", "publishers", "quotas",
        "scope", "subscribers",
    ],
    "hub": [
        "admission", "ages", "channel", "chunks", "connection", "context", "fanout", "history", "idempotency",
        "listener", "loop", "message_rules", "peers", "poller", "polls", "presence", "publishing", "reasons",
        "requests", "responses", "sockets", "streams", "subscriptions", "timers", "unproven",
    ],
    "store": ["receipts"],
    "wire": [
        "drafts", "encoding", "envelope", "eventsource", "forwarded", "http", "longpoll", "names", "negotiation",
        "polls", "request", "streams", "websocket",
    ],
}  # fmt: skip


def compiled() -> dict:
    settings = ConfigParser()
    settings.read("setup.cfg")
    # mypyc is a part of mypy, which needs the types of what the modules import.
    requires = ["mypy>=2.3", *settings["options"]["install_requires"].split()]
    if "egg_info" in sys.argv or "dist_info" in sys.argv:
        return {"setup_requires": requires}  # pip asks what the build needs, which may not be there yet
    from mypyc.build import mypycify

    # Not strict, and without the types of optional dependencies: that is for "make lint" to see.
    options = [f"--config-file={os.devnull}", "--ignore-missing-imports"]
    paths = [f"pushcompat/{part}/{name}.py" for part, names in COMPILED.items() for name in names]
    return {"setup_requires": requires, "ext_modules": mypycify([*options, *paths], group_name="pushcompat")}


def description() -> str:
    """README.md without what leads nowhere where it is shown alone: links to files become their text, pictures go."""
    text = re.sub(r"!\[[^]]*\]\((?!https?:)[^)]*\)\n*", "", Path("README.md").read_text("utf-8"))
    return re.sub(r"\[([^]]*)\]\((?!https?:)[^)]*\)", r"\1", text)


setup(
    long_description=description(),
    long_description_content_type="text/markdown",
    **(compiled() if os.environ.get("PUSHCOMPAT_COMPILE") == "1" else {}),
)
