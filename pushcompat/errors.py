"""Error responses: status, close code and message of each kind of invalid request.

    RequestError                      an error response: HTTP status, close code, and what to change
    ├── BadRequest          400  malformed: a name, a parameter, JSON, UTF-8
    ├── Unauthorized        401  a key or token is missing, wrong or expired           (close 4401)
    ├── Forbidden           403  channel or origin not allowed                         (close 4403)
    ├── NotFound            404
    ├── MethodNotAllowed    405
    ├── Conflict            409  a name that is taken
    ├── RequestTimeout      408  the request was not received in time
    ├── PayloadTooLarge     413
    ├── UnsupportedMedia    415
    ├── KeyReused           422  the Idempotency-Key was used with another body
    ├── UpgradeRequired     426  a WebSocket handshake that a proxy damaged
    │   └── UnknownVersion  426  a WebSocket handshake for another version than 13
    ├── TooManyRequests     429  a limit of this client or key is reached: try again after ``retry_s`` (close 4129)
    ├── HeadTooLarge        431
    ├── NotImplementedMethod 501 a method that HTTP does not have
    ├── HttpVersion         505
    ├── Unavailable         503  try again after ``retry_s``
    └── StoreFull           507  the store is full
    ConfigError                  invalid configuration (exit code 2)

A WebSocket whose handshake is refused is closed with a ``CloseCode``.
"""

from __future__ import annotations

import math
import re
from enum import IntEnum
from http import HTTPStatus

from .config_error import ConfigError as ConfigError

LONGEST_RETRY_S = 3600.0  # clients wait for an hour at most


class CloseCode(IntEnum):
    """The codes with which the server closes a WebSocket (RFC 6455 §7.4), and their meaning for the client.

    Among the codes that RFC 6455 leaves to applications, 4000-4199 are temporary and 4400-4499 permanent.
    docs/protocol.md section 6 has the same table.
    """

    NORMAL = 1000, "the client closed with this code, which is echoed as any other"
    GOING_AWAY = 1001, "the client closed with this code (a page that is left)"
    PROTOCOL_ERROR = 1002, "the client broke RFC 6455"
    INVALID_DATA = 1007, "the client sent text that is not UTF-8"
    MESSAGE_TOO_BIG = 1009, "the client sent a message over the limit"
    INTERNAL_ERROR = 1011, "a bug of the server"
    SERVICE_RESTART = 1012, "rotation or shutdown"
    UNAVAILABLE = 4100, "the server cannot serve this now"
    TOO_MANY_REQUESTS = 4129, "a limit of this client's address is reached"
    BAD_REQUEST = 4400, "a malformed name or parameter, or too many channels"
    UNAUTHORIZED = 4401, "token missing, wrong, expired or revoked"
    FORBIDDEN = 4403, "pages of this origin may not connect, or a channel is not allowed"
    NOT_FOUND = 4404, "no channel in the URL"

    meaning: str

    def __new__(cls, value: int, meaning: str) -> CloseCode:
        code = int.__new__(cls, value)
        code._value_ = value
        code.meaning = meaning
        return code


class RequestError(Exception):
    """Refuses one request. ``detail`` is a sentence that tells the client what to change."""

    status = HTTPStatus.BAD_REQUEST
    close_code = CloseCode.BAD_REQUEST
    headers: tuple[tuple[str, str], ...] = ()
    cors = b""  # header lines that allow the requesting page to read the response

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail

    @classmethod
    def label(cls) -> str:
        """The label in metrics, for example ``payload_too_large``."""
        return re.sub("(?<!^)([A-Z])", r"_\1", cls.__name__).lower()

    @property
    def reason(self) -> str:
        return self.label()


class BadRequest(RequestError):
    pass


class Unauthorized(RequestError):
    status = HTTPStatus.UNAUTHORIZED
    close_code = CloseCode.UNAUTHORIZED
    headers = (("WWW-Authenticate", 'Bearer realm="pushcompat"'),)


class Forbidden(RequestError):
    status = HTTPStatus.FORBIDDEN
    close_code = CloseCode.FORBIDDEN


class NotFound(RequestError):
    status = HTTPStatus.NOT_FOUND
    close_code = CloseCode.NOT_FOUND


class MethodNotAllowed(RequestError):
    status = HTTPStatus.METHOD_NOT_ALLOWED

    def __init__(self, detail: str, allow: str) -> None:
        super().__init__(detail)
        self.headers = (("Allow", allow),)


class Conflict(RequestError):
    status = HTTPStatus.CONFLICT


class RequestTimeout(RequestError):
    status = HTTPStatus.REQUEST_TIMEOUT


class PayloadTooLarge(RequestError):
    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE


class UnsupportedMedia(RequestError):
    status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE
    headers = (("Accept", "application/json, text/plain"), ("Accept-Encoding", "identity"))  # RFC 9110 §15.5.16


class KeyReused(RequestError):
    status = HTTPStatus.UNPROCESSABLE_ENTITY


class UpgradeRequired(RequestError):
    """``damage`` is its label in metrics."""

    status = HTTPStatus.UPGRADE_REQUIRED
    headers: tuple[tuple[str, str], ...] = (("Upgrade", "websocket"), ("Connection", "Upgrade"))

    def __init__(self, detail: str, damage: str) -> None:
        super().__init__(detail)
        self.damage = damage


class UnknownVersion(UpgradeRequired):
    headers = (("Sec-WebSocket-Version", "13"), ("Upgrade", "websocket"))  # RFC 6455 §4.2.2


class TooManyRequests(RequestError):
    """``limit`` is its label in metrics. ``retry_s`` is rounded up to whole seconds, at least 1."""

    status = HTTPStatus.TOO_MANY_REQUESTS
    close_code = CloseCode.TOO_MANY_REQUESTS

    def __init__(self, detail: str, limit: str, retry_s: float = 1.0) -> None:
        super().__init__(detail)
        self.limit = limit
        self.headers = (("Retry-After", str(max(1, math.ceil(min(retry_s, LONGEST_RETRY_S))))),)


class HeadTooLarge(RequestError):
    status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE


class NotImplementedMethod(RequestError):
    status = HTTPStatus.NOT_IMPLEMENTED


class HttpVersion(RequestError):
    status = HTTPStatus.HTTP_VERSION_NOT_SUPPORTED


class Unavailable(RequestError):
    status = HTTPStatus.SERVICE_UNAVAILABLE
    close_code = CloseCode.UNAVAILABLE

    def __init__(self, detail: str, retry_s: int = 1) -> None:
        super().__init__(detail)
        self.headers = (("Retry-After", str(retry_s)),)


class StoreFull(RequestError):
    status = HTTPStatus.INSUFFICIENT_STORAGE
    close_code = CloseCode.UNAVAILABLE
    headers = (("Retry-After", "10"),)
