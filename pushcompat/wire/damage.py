"""What proxies do to WebSocket handshakes: each kind of damage, and what to change.

A damaged handshake is refused with 426 and counted by its kind. It is not taken for a plain request, so that the
operator learns of it; the client uses another transport.
"""

from __future__ import annotations

from ..errors import UnknownVersion, UpgradeRequired

UPGRADE, CONNECTION, HTTP_VERSION = "upgrade", "connection", "http_version"
NO_KEY, REPEATED_KEY, INVALID_KEY, VERSION = "no_key", "repeated_key", "invalid_key", "version"

DAMAGES = {
    UPGRADE: "arrived without Upgrade: websocket, which a proxy probably removed; configure the proxy to forward "
    "Upgrade and Connection",
    CONNECTION: "arrived without Connection: Upgrade, which a proxy probably removed; configure the proxy to send it "
    "where it sends Upgrade",
    HTTP_VERSION: "arrived over HTTP/1.0; configure the proxy to use HTTP/1.1 to this server",
    NO_KEY: "arrived without Sec-WebSocket-Key; a proxy probably made it from an HTTP/2 one: configure the proxy not "
    "to offer extended CONNECT",
    REPEATED_KEY: "arrived with several Sec-WebSocket-Key; configure the proxy not to add one",
    INVALID_KEY: "arrived with a Sec-WebSocket-Key that is not 16 bytes in base64; configure the proxy to forward it "
    "unchanged",
    VERSION: "arrived without Sec-WebSocket-Version: 13 as its only version; use a client of RFC 6455, and configure "
    "the proxy to forward the header once",
}


def damaged(damage: str) -> UpgradeRequired:
    """The refusal of a handshake with this damage."""
    refusal = UnknownVersion if damage == VERSION else UpgradeRequired
    detail = (
        f"this WebSocket handshake {DAMAGES[damage]}; or subscribe with transport=eventsource or transport=longpoll"
    )
    return refusal(detail, damage)
