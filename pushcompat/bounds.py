"""The largest resident memory of a process, from its limits: docs/operations.md, "What bounds memory and time".

It is a bound, not an estimate: all connections at once would have to do the worst of all. The sizes of objects are
measured, on 64-bit CPython 3.11 to 3.13, and rounded up.
"""

from __future__ import annotations

from collections.abc import Mapping

from .limits import Limits

_KIB, _MIB = 1024, 1024 * 1024
_PROCESS = 72 * _MIB  # interpreter, modules, and what stores and libraries allocate at the start
_RESERVED = 256  # connections of publishers and pages beyond the maximum for subscribers
_CONNECTION, _TLS = _KIB, 17 * _KIB
_CHANNEL = 1.4 * _KIB  # a new channel, the connection's place in it, and its client's
_READ = 4 * _KIB  # one read after a head
_PAGE = 44 * _KIB  # a request to a page whose body is incomplete, with what Tornado needs for it
_FRAME = 12 * _KIB  # the parser of a WebSocket with an incomplete frame
_RECORD = 36 * _KIB  # an incomplete record, which is received and then decrypted
_ADDRESS = 0.4 * _KIB
_ABSENT = 10_000  # of addresses, floors, pollers and webhooks
_OTHERS = (0.4 + 0.7 + 1 + 1 + 1) * _KIB  # of each: an address, a floor, a poller, a change, a line of the log
_VERDICTS = 2 * 0.5 * _KIB  # a token, an answer of the application
_WAITING = 2 * 1000  # requests whose token is being verified
_UNPROVEN = 64  # incomplete publishes without a key
_HISTORY = 2 + 1 / 8  # of --history-bytes: during deliveries, and in the memory store
_FRAGMENTATION = 1.25  # of the allocator, after many connections have come and gone


def memory_bound(limits: Limits, *, tls: bool = False) -> Mapping[str, float]:
    """Bytes, by what they are for; their sum is the bound. ``limits.max_connections`` must be set.

    Not included: what those who have a publish key or the root key may send.
    """
    assert limits.max_connections is not None
    connections = limits.max_connections + _RESERVED
    incomplete = max(limits.head_bytes + _READ, limits.websocket_message_bytes + _FRAME, _PAGE)
    incomplete += _RECORD if tls else 0  # an incomplete handshake takes 64 KiB, and nothing else then
    parts = {
        "the process": _PROCESS,
        "connections": connections * (_CONNECTION + _ADDRESS + (_TLS if tls else 0)),
        "incomplete requests and frames": connections * incomplete,
        "channels of subscriptions": limits.max_connections * limits.max_channels * _CHANNEL,
        "retained messages": limits.retention.bytes * _HISTORY,
        "Idempotency-Keys": limits.retention.idempotency_bytes * 2,
        "unsent bytes": limits.unsent_budget_bytes + limits.send_bytes,
        "publishes and webhooks to verify": _UNPROVEN * limits.batch_bytes + 2 * limits.hook_budget_bytes,
        "subscribers that wait to be admitted": _WAITING * limits.head_bytes,
        "what is remembered": _ABSENT * (_OTHERS + _VERDICTS),
    }
    return {**parts, "fragmentation": sum(parts.values()) * (_FRAGMENTATION - 1)}
