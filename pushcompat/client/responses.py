"""Parsing of HTTP responses in the clients. Standard library only.

``http.client`` leaves three things to its callers: to skip informational responses (RFC 9110 §15.2), to notice that a
body is shorter than its Content-Length (RFC 9112 §8), and to distrust the numbers that it reads.
"""

from __future__ import annotations

import http.client
import json
import time
from email.utils import parsedate_to_datetime

MAX_RETRY_AFTER_S = 3600.0  # the longest delay that a server or proxy can request
MAX_DETAIL_BYTES = 64 * 1024
_MAX_INFORMATIONAL = 16
_READ_BYTES = 64 * 1024
_RETRYABLE = (408, 425, 426, 429)  # statuses below 500 for which the same request may succeed later
_SWITCHING_PROTOCOLS = 101


class Response(http.client.HTTPResponse):
    """A response without the informational ones before it: ``http.client`` skips 100 only, and any number of them."""

    def _read_status(self) -> tuple[str, int, str]:
        for _ in range(_MAX_INFORMATIONAL + 1):
            line: tuple[str, int, str] = super()._read_status()  # type: ignore[misc]
            if not 100 <= line[1] < 200 or line[1] == _SWITCHING_PROTOCOLS:
                return line
            http.client.parse_headers(self.fp)
        raise http.client.HTTPException(f"more than {_MAX_INFORMATIONAL} informational responses")


def read_body(response: http.client.HTTPResponse, max_bytes: int) -> bytes:
    """The first ``max_bytes`` of the body. Raises HTTPException if it ends too early, or its chunks are malformed."""
    body = b""
    try:
        while len(body) < max_bytes:
            data = response.read(min(_READ_BYTES, max_bytes - len(body)))
            if not data:
                break
            body += data
        else:
            return body
    except ValueError as error:
        raise http.client.HTTPException("malformed chunks") from error  # a size below 0
    if response.length:
        raise http.client.IncompleteRead(body, response.length)
    if _ends_with_connection(response) and _is_cut_json(response, body):
        raise http.client.IncompleteRead(body)
    return body


def _ends_with_connection(response: http.client.HTTPResponse) -> bool:
    return response.length is None and not response.chunked


def _is_cut_json(response: http.client.HTTPResponse, body: bytes) -> bool:
    """Only the text shows whether a body that ends with the connection is complete. The server's are JSON objects."""
    return response.headers.get_content_type() == "application/json" and not body.rstrip().endswith(b"}")


def is_retryable(status: int) -> bool:
    """Whether the same request may succeed later."""
    return status in _RETRYABLE or 500 <= status < 600


def problem_detail(status: int, body: bytes) -> str:
    """The detail of an error response (RFC 9457), or its status if it has none."""
    try:
        document = json.loads(body)
        return str(document.get("detail") or document["title"])
    except (ValueError, AttributeError, KeyError, RecursionError):
        return f"answered {status} {http.client.responses.get(status, '')}".strip()


def retry_after_s(text: str) -> float | None:
    """A Retry-After: seconds, or a date (RFC 9110 §10.2.3). At most an hour; None if it is neither."""
    try:
        seconds = float(text) if text.strip().isdecimal() else parsedate_to_datetime(text).timestamp() - time.time()
    except (TypeError, ValueError, OverflowError, IndexError):
        return None
    return min(max(0.0, seconds), MAX_RETRY_AFTER_S)
