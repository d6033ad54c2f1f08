"""Why a subscription ended: the ``reason`` of the log event and the metric. Documented in docs/operations.md."""

from __future__ import annotations

from enum import StrEnum


class CloseReason(StrEnum):
    LEFT = "left"  # the poller did not poll again within the grace period
    CHANNELS_CHANGED = "channels_changed"  # the next request on the connection is for other channels
    CONNECTION_REUSED = "connection_reused"  # a proxy gave the poller's connection to another client
    SUPERSEDED = "superseded"  # the same client subscribes to the same channels on a newer connection
    PING_TIMEOUT = "ping_timeout"  # a WebSocket client that used to answer pings has answered none for 2 heartbeats
    RESPONSE_SENT = "response_sent"  # a poll was answered on a connection that is not kept alive
    ROTATED = "rotated"  # the stream reached the request cap
    EXPIRED = "expired"  # its token has expired or was revoked
    SHUTDOWN = "shutdown"  # the server is stopping
    SERVER_CLOSED = "server_closed"  # the server stopped before the client had left
    CLIENT_CLOSED = "client_closed"  # the client closed the connection, or sent a Close frame
    CONNECTION_RESET = "connection_reset"  # the network or the client reset the connection
    WRITE_TIMEOUT = "write_timeout"  # the client read nothing for --write-timeout
    UNSENT_BUDGET = "unsent_budget"  # too many unsent bytes in total, and this client was the slowest
    CLOSE_TIMEOUT = "close_timeout"  # the client did not close its side in time; never for a subscription
    IDLE_TIMEOUT = "idle_timeout"  # no request arrived on the connection; never for a subscription
    HANDSHAKE_FAILED = "handshake_failed"  # of TLS, or not complete in time; never for a subscription
    REFUSED = "refused"  # an error response ended the connection
    INTERNAL_ERROR = "internal_error"  # a bug of the server; there is a traceback in the log
