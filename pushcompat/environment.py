"""``PUSHCOMPAT_…`` variables that set nothing: typing errors, mostly.

Not reported is what Kubernetes and Docker set in each container for a Service called ``pushcompat``, or
``pushcompat-x``: PUSHCOMPAT_SERVICE_HOST, PUSHCOMPAT_PORT_8888_TCP_ADDR and so on.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from difflib import get_close_matches

PREFIX = "PUSHCOMPAT_"
SERVICE_LINK = re.compile(r"(tcp|udp|sctp)://")
_OF_A_SERVICE = re.compile(r"\w*_SERVICE_(HOST|PORT)(_\w+)?|\w*_PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?")
_OF_THE_BUILD = ("PUSHCOMPAT_COMPILE", "PUSHCOMPAT_TEST_")  # setup.py, tests


def unknown(environ: Mapping[str, str], known: Collection[str]) -> dict[str, str]:
    """A sentence for each variable that is no option. ``known``: those that are."""
    found = sorted(name for name in environ if name.startswith(PREFIX) and name not in known)
    return {
        name: f"no option has this name; {_advice(name, known)}"
        for name in found
        if not (_is_of_a_service(name, environ[name]) or name.startswith(_OF_THE_BUILD))
    }


def _is_of_a_service(name: str, value: str) -> bool:
    return bool(SERVICE_LINK.match(value) or _OF_A_SERVICE.fullmatch(name))


def _advice(name: str, known: Collection[str]) -> str:
    for close in get_close_matches(name, known, 1, 0.8):
        return f"did you mean {close}?"
    return "see pushcompat --help for all options"
