"""What the configuration says about access. It can be replaced while the server runs: ``Access.reconfigure``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from .claims import Verifier
from .named_key import NamedKey
from .proxies import Proxies
from .rules import Rules


@dataclass(frozen=True, slots=True)
class Policy:
    """``publish_keys``: keys that allow everything. ``origins``: origins whose pages may use the server, or ``*``.
    ``loopback``: only this machine can reach the server. ``rules``: by channel. ``keys``: named ones. ``tokens``:
    verifies the tokens of subscribers; None: they are not looked at. ``token_cookie``: the name of the cookie that may
    hold one. ``proxies``: those that are trusted. ``publish_rate``: messages that a publisher may publish a second.
    """

    publish_keys: Sequence[bytes] = ()
    origins: Sequence[str] = ()
    loopback: bool = False
    rules: Rules = field(default_factory=Rules)
    keys: Sequence[NamedKey] = ()
    tokens: Verifier | None = None
    token_cookie: str = ""
    proxies: Proxies = field(default_factory=Proxies)
    publish_rate: float | None = None
