"""All limits and time windows, as one immutable value that the command line creates and passes on; see ``config``.

Units are in the names: ``_s`` seconds, ``_bytes`` bytes; the rest are counts.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, replace
from math import ceil, sqrt
from typing import Protocol

LONGEST_S = 86400.0  # longest delay that clients are given: far below the 24.8 days that a browser's timer can hold

_RATE_S = 10.0  # what was not used within this time may be used at once: access.quotas.BURST_S


class ByChannel(Protocol):
    """What channels have instead. It may change while the server runs."""

    @property
    def exist(self) -> bool:
        """Whether some channel has a count or an age of its own."""

    def of(self, channel: str) -> tuple[int | None, float | None]:
        """The channel's own count, and age in seconds; None: as all channels."""


@dataclass(frozen=True, slots=True)
class Retention:
    """Which messages are retained, for clients that resume. Processes that share a log should have the same."""

    count: int = 100  # messages per channel
    age_s: float = 3600.0
    bytes: int = 64 * 1024 * 1024  # payloads of all channels together
    idempotency_s: float = 300.0  # how long an Idempotency-Key is remembered
    idempotency_bytes: int = 32 * 1024 * 1024  # of the keys and their responses; under load it shortens the time above
    by_channel: ByChannel | None = None

    @property
    def uniform(self) -> bool:
        """All channels have the same count and age."""
        return self.by_channel is None or not self.by_channel.exist

    def of(self, channel: str) -> tuple[int, float]:
        """The maximum number of the channel's messages, and their maximum age in seconds."""
        if self.by_channel is None:
            return self.count, self.age_s
        count, age_s = self.by_channel.of(channel)
        return self.count if count is None else count, self.age_s if age_s is None else age_s


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits and timeouts of clients."""

    request_cap_s: float | None = None  # longest lifetime of a request; None: the network has no such cap
    poll_window_s: float = 25.0  # the longest hold that fits every 30 s cap, with room for TLS and a cold start
    heartbeat_s: float = 15.0  # the WHATWG's figure; below the idle timeout of every known platform
    head_bytes: int = 16 * 1024
    head_s: float = 10.0
    body_s: float = 20.0
    idle_s: float = 620.0  # load balancers keep their idle connections for up to 600 s
    poll_grace_s: float = 10.0  # how long a poller between two polls still counts as a subscriber
    presence_delay_s: float = 5.0  # how long a channel must be occupied, or vacated, before the webhook is sent
    write_s: float = 120.0  # a client that reads nothing for this long is disconnected
    close_s: float = 5.0  # how long the client's half of a closing handshake may take
    drain_s: float = 5.0
    publish_s: float = 20.0  # how long a publish waits for an overloaded channel before its 503
    message_bytes: int = 60 * 1024  # an envelope of it fits the 64 KiB that many clients take in one line or message
    batch_bytes: int = 1024 * 1024
    batch_messages: int = 1000
    max_channels: int = 64  # channels in one request
    websocket_message_bytes: int = 64 * 1024  # from a client
    send_bytes: int = 256 * 1024  # most bytes of messages in one send or poll response
    unsent_bytes: int = 64 * 1024  # most unsent bytes in the kernel for one connection (TCP_NOTSENT_LOWAT)
    unsent_budget_bytes: int = 64 * 1024 * 1024  # most unsent bytes of all connections in this process
    stream_input_bytes: int = 2 * 1024  # read from one stream in a second; input on streams has no meaning
    max_connections: int | None = None  # beyond it subscribers get 503; None: by the limit of open files
    max_connections_per_address: int | None = None  # None: half of max_connections
    handshake_rate: float = 2000.0  # connections that one address may open a second: a sixth of a core
    publish_rate: float | None = None  # messages that one key may publish a second
    verify_share: float = 0.25  # of the time of a process, for the signatures of tokens
    authorize_s: float = 5.0  # for the application's answer; clients give a connection 10 s
    authorize_at_once: int = 16  # questions to the application at the same time
    authorize_ttl_s: float = 300.0  # how long an answer is kept that does not say
    authorize_most_s: float = 86400.0  # and one that does
    max_visits: int = 256  # subscribers visited, and sockets read, in one turn of the loop
    hook_body_bytes: int = 1024 * 1024  # of a received webhook; GitHub's may be larger than a message
    hook_budget_bytes: int = 32 * 1024 * 1024  # of all webhooks that are being received
    refetch_rate: float | None = None  # refetches a second that the application can serve; None: no spread
    retention: Retention = field(default_factory=Retention)

    @property
    def connections_per_address(self) -> int:
        """Half of all by default: a school behind one address must not notice, and no address can use up all."""
        if self.max_connections_per_address is not None:
            return self.max_connections_per_address
        return sys.maxsize // 4 if self.max_connections is None else max(1, self.max_connections // 2)

    def of_worker(self, number: int, workers: int, spread: bool) -> Limits:
        """The part of one process, of the limits that are for all processes together. ``number``: from 1. ``spread``:
        the kernel spreads connections over the processes; otherwise all of an address may be in one.

        A key's publishes are not divided: a publisher stays connected to one process.
        """
        most, own, rate = self.max_connections, self.max_connections_per_address, self.handshake_rate
        return replace(
            self,
            max_connections=None if most is None else max(1, (most + number - 1) // workers),
            max_connections_per_address=own if own is None or not spread else ceil(_uneven(own, workers)),
            handshake_rate=_uneven(rate * _RATE_S, workers) / _RATE_S if spread else rate,
            authorize_at_once=ceil(self.authorize_at_once / workers),
        )

    @property
    def poll_s(self) -> float:
        """How long a poll is held: the window, shortened under a request cap. Clients take one that ends within a
        second for one that a proxy does not let the server hold, and pause.
        """
        return (
            self.poll_window_s
            if self.request_cap_s is None
            else min(self.poll_window_s, max(3, self.request_cap_s - 5))
        )

    @property
    def closing_s(self) -> float:
        """Time limit for the client's half of closing a connection, shortened under a request cap."""
        return self.close_s if self.request_cap_s is None else min(self.close_s, 2.0)

    @property
    def stream_s(self) -> float | None:
        """The longest life of a stream: the request cap minus two seconds for closing. None: unlimited."""
        return None if self.request_cap_s is None else self.request_cap_s - 2


def _uneven(most: float, workers: int) -> float:
    """How many of these one process gets at most, as the kernel spreads them evenly, but not exactly."""
    mean = most / workers
    return min(most, mean + 3 * sqrt(mean))  # three standard deviations
