"""The report of ``pushcompat check``, and its exit code."""

from __future__ import annotations

from dataclasses import replace

from ..access.token_keys import TokenKeys, load_token_keys
from ..access.tokens import Verifier
from ..bounds import memory_bound
from ..config import Config
from ..descriptors import connections_within, raise_limit
from ..errors import ConfigError
from ..exposure import refusals
from ..tls import Certificate
from .case import explain
from .findings import findings
from .reach import public_addresses
from .table import lines

FINE, WARNED = 0, 1
_UNLIMITED = 100_000  # connections, if the operating system sets no limit


def report(config: Config) -> tuple[list[str], int]:
    """The table of rules, the warnings and notes. WARNED if there are warnings. Raises ConfigError."""
    found = findings(config, _checked(config))
    dangers = [f"warning: {finding.text}" for finding in found if finding.dangerous]
    notes = [f"note: {finding.text}" for finding in found if not finding.dangerous]
    return [
        *lines(config),
        *([""] if found else []),
        *dangers,
        *notes,
        "",
        _memory(config),
    ], WARNED if dangers else FINE


def report_case(config: Config, channel: str, token: str | None) -> tuple[list[str], int]:
    """What applies to the channel. WARNED if the token does not suffice to subscribe. Raises ConfigError."""
    keys = _checked(config)
    verifier = None if keys is None else Verifier(keys, config.tokens)
    case = explain(config, channel, token, verifier)
    return case.lines, WARNED if case.allowed is False else FINE


def _memory(config: Config) -> str:
    connections = connections_within(raise_limit(), config.limits.max_connections) or _UNLIMITED
    bound = memory_bound(replace(config.limits, max_connections=connections), tls=config.tls_cert is not None)
    size = f"{sum(bound.values()) / 2**20:,.0f} MiB"
    return f"A process with {connections:,} connections uses at most {size} of memory, usually a tenth of it"


def _checked(config: Config) -> TokenKeys | None:
    """The token keys. Raises ConfigError for what the server would refuse at its start."""
    for refusal in refusals(config, *public_addresses(config)):
        raise ConfigError(refusal)
    if config.tls_cert is not None:
        Certificate(config.tls_cert, config.tls_key)
    settings = config.tokens
    return load_token_keys(settings.key_files, settings.key) if settings.given else None
