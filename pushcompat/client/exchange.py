"""One request and its response on a connected socket: head and body in one send, the usual response read without
``http.client``, which takes as long for it as everything else together. Standard library only.
"""

from __future__ import annotations

import http.client
import io
import re

from .dial import BoundedSocket
from .failures import ClosedWithoutAnswer, Response
from .responses import Response as HttpResponse
from .responses import read_body

READ_BYTES = 64 * 1024
_MAX_RESPONSE_BYTES = 4 * 1024 * 1024
# Not compiled here: that would take a fifth of the time of the import; ``re`` keeps them from their first use on.
_USUAL = rb"HTTP/1\.1 200 [^\r\n]*\r\n(?:[!-9;-~]+:[^\r\n]*\r\n)*\r\n"
_LENGTH = rb"(?i)\r\ncontent-length:[ \t]*([0-9]{1,7})[ \t]*\r\n"
_UNUSUAL = rb"(?i)\r\n(?:transfer-encoding:|connection:[^\r\n]*close)"
_WANTED = ("retry-after", "location")


class Stale(ConnectionError):
    """A kept connection has ended before a byte of a response: the server had closed it."""


def exchange(sock: BoundedSocket, request: bytes, is_kept: bool) -> tuple[Response, bool]:
    """The response, and whether the connection can be used again. Raises OSError, HTTPException; Stale."""
    cut = None
    try:
        sock.sendall(request)
    except (BrokenPipeError, ConnectionResetError) as error:
        cut = error  # the server closed before it read the whole body; its response explains why
    try:
        data = sock.recv(READ_BYTES)
    except ConnectionResetError as error:
        cut, data = error, b""
    if not data:
        raise closed(is_kept) from cut
    size = usual_size(data)
    if size is None:
        return _any(sock, data), False
    while len(data) < size:
        more = sock.recv(size - len(data))
        if not more:
            raise http.client.IncompleteRead(data, size - len(data))
        data += more
    return usual(data[:size]), cut is None and len(data) == size


def closed(is_kept: bool) -> ConnectionError:
    """The connection has ended without a byte of a response."""
    return Stale("ended while it was kept") if is_kept else ClosedWithoutAnswer("closed without an answer")


def usual_size(data: bytes) -> int | None:
    """The size of a response: a 200 with a length, whose whole head is in ``data``. None: it is another one."""
    match = re.match(_USUAL, data)
    if match is None or re.search(_UNUSUAL, match[0]):
        return None
    length = re.search(_LENGTH, match[0])
    return None if length is None else match.end() + int(length[1])


def usual(data: bytes) -> Response:
    return Response(200, {}, data.partition(b"\r\n\r\n")[2])


def _any(sock: BoundedSocket, data: bytes) -> Response:
    return read(_Begun(sock.makefile("rb", data)))


def read(sock: _Begun) -> Response:
    """Any response, by ``http.client``. Raises OSError, HTTPException."""
    response = HttpResponse(sock, method="POST")  # type: ignore[arg-type]
    try:
        response.begin()
        body = read_body(response, _MAX_RESPONSE_BYTES)
        headers = {name: value for name in _WANTED if (value := response.headers.get(name)) is not None}
        return Response(response.status, headers, body)
    finally:
        response.close()


def read_received(data: bytes) -> Response:
    """``read`` of what was received. Raises HTTPException if it is not complete."""
    return read(_Begun(io.BufferedReader(io.BytesIO(data))))


class _Begun:
    """What HTTPResponse needs of a socket."""

    def __init__(self, file: io.BufferedReader) -> None:
        self._file = file

    def makefile(self, mode: str) -> io.BufferedReader:
        return self._file
