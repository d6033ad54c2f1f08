"""A TLS client that shows what is on the wire."""

from __future__ import annotations

import socket
import ssl

from .harness import client_tls

_TYPES = {20, 21, 22, 23}  # change_cipher_spec, alert, handshake, application_data
ALERT = 21


class Wiretap:
    """The client's end of a connection whose socket does not block. ``chunk``: what ``handshake`` sends at once."""

    def __init__(
        self, sock: socket.socket, newest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3, chunk: int = 1 << 16
    ) -> None:
        self._chunk = chunk
        self.socket = sock
        sock.setblocking(False)
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        context = client_tls()
        context.maximum_version = newest
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname="localhost")
        self.wire = b""  # all that the server has sent
        self.at_end = False  # its FIN has come

    def handshake(self) -> bool:
        """Goes on as far as it can; whether it is complete."""
        self._receive()
        try:
            self._tls.do_handshake()
            complete = True
        except ssl.SSLWantReadError:
            complete = False
        self.socket.sendall(self._outgoing.read(self._chunk))
        return complete and not self._outgoing.pending

    def send(self, *records: bytes) -> None:
        """Sends these, each in a record of its own, with whatever else is to be sent, at once."""
        for data in records:
            assert self._tls.write(data) == len(data)
        self.socket.sendall(self._outgoing.read())

    def close_notify(self) -> None:
        try:
            self._tls.unwrap()
        except ssl.SSLWantReadError:
            pass
        self.send()

    def read(self, most: int = 1 << 20) -> bytes:
        """What has come of up to so many bytes on the wire, decrypted. Raises EOFError after a close_notify, and
        SSLEOFError at an end without one.
        """
        self._receive(most)
        data = b""
        try:
            while more := self._tls.read(1 << 16):
                data += more
        except ssl.SSLWantReadError:
            return data
        except ssl.SSLZeroReturnError:
            pass
        if not data:
            raise EOFError
        return data

    def to_end(self) -> bytes:
        """All until a close_notify, which FIN follows. Raises SSLEOFError at an end without one."""
        received = b""
        try:
            while True:
                received += self.read()
        except EOFError:
            pass
        while not self.at_end:
            self._receive()
        return received

    def _receive(self, most: int = 1 << 20) -> None:
        if self.at_end:
            return
        try:
            data = self.socket.recv(most)
        except BlockingIOError:
            return
        self.wire += data
        self._incoming.write(data)
        if not data:
            self.at_end = True
            self._incoming.write_eof()

    def records(self) -> list[int]:
        """The types of the records on the wire. Anything that is not encrypted, or cut short, is an error."""
        rest, types = self.wire, []
        while rest:
            size = int.from_bytes(rest[3:5], "big")
            assert rest[0] in _TYPES, f"in the clear: {rest[:40]!r}"
            assert rest[1] == 3, f"in the clear: {rest[:40]!r}"
            assert len(rest) >= 5 + size, "the last record is incomplete"
            types.append(rest[0])
            rest = rest[5 + size :]
        return types
