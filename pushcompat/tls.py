"""TLS: the certificate, and encrypted sockets that the hub and Tornado use like plain ones.

A plain socket is drained when a read did not fill its buffer, and may be written to when the kernel says so. OpenSSL
stands between: what differs is here and in ``hub/sockets``, and nowhere else.

- **Reading.** OpenSSL is given one record at a time, not the socket, so the work of one call is bounded;
  ``_EMPTY_RECORDS`` without data, in a row, end the connection. More than one record may have come, which no poller
  reports again: an encrypted socket is drained when a read would block, and not before.
- **Writing.** A record that the kernel did not take whole is kept, and its bytes count as unsent until then; they must
  come again, first (OpenSSL's own rule). With one record at a time, a client that reads 200 KiB slowly does not look
  like one that reads nothing.
- **A ClientHello** has at most ``_HELLO_BYTES``: OpenSSL allocates what its header announces, up to
  128 KiB, before the rest of it has come.
- **The end** is a close_notify, then FIN (``end``). Without close_notify a client cannot tell the end of a response
  from a connection that was cut (RFC 8446 §6.1).
- **New certificates** get a new context: one context keeps the old certificate beside a new one whose key is of
  another type, and serves both.

TLS 1.2 is limited to ciphers with forward secrecy and authenticated encryption (RFC 9325 §4.2), without renegotiation.
"""

from __future__ import annotations

import logging
import socket
import ssl
from pathlib import Path
from typing import Any

from . import logs
from .errors import ConfigError
from .logs import Event

# All of these mean "would block".
BLOCKED = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
HANDSHAKE = b"\x16"  # the first byte of every TLS connection (RFC 8446 §5.1)

_RECORD_BYTES = 16 * 1024  # the most data in a record (RFC 8446 §5.1)
_HEADER_BYTES = 5
_MOST_BYTES = _HEADER_BYTES + _RECORD_BYTES + 2048  # of an encrypted record (RFC 5246 §6.2.3)
_RECORD_TYPES = range(20, 24)  # change_cipher_spec, alert, handshake, application_data
_HANDSHAKE_RECORDS = 32  # that are read at once
_HELLO_BYTES = 16 * 1024  # OpenSSL has a buffer of that size anyway; those of browsers have 2 KiB
_HELLO_HEADER_BYTES = 4  # its type, and the size of the rest (RFC 8446 §4)
# The random of a ServerHello that asks for another ClientHello, HelloRetryRequest (RFC 8446 §4.1.3)
_RETRY_AT = 11
_RETRY = bytes.fromhex("cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c")
_EMPTY_RECORDS = 8  # without data, in a row: 7 µs each, and clients have no reason for more than one or two
_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"  # of TLS 1.2; those of 1.3 are all sound
_buffer = memoryview(bytearray(_MOST_BYTES))

_receive_into, _send = socket.SocketType.recv_into, socket.SocketType.send


class TLSSocket(socket.socket):
    """The server's end of an encrypted connection; takes the plain socket over."""

    __slots__ = ("_hello", "_incoming", "_outgoing", "_owed", "_received", "_tls", "_unsent")

    def __init__(self, sock: socket.SocketType, context: ssl.SSLContext) -> None:
        super().__init__(sock.family, sock.type, sock.proto, sock.detach())
        self.setblocking(False)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._hello: bytes | None = b""  # the header of a ClientHello, until the server has answered it
        self._received = b""  # records that OpenSSL has not got yet
        self._unsent: bytes | memoryview = b""  # of an encrypted record
        self._owed = 0  # how much data that record has

    def do_handshake(self) -> None:
        """Continues as far as the client's bytes go. Raises one of BLOCKED, and OSError."""
        for _ in range(_HANDSHAKE_RECORDS):
            try:
                self._tls.do_handshake()
                self._flush()
                return
            except ssl.SSLWantReadError:
                self._flush()
            except ssl.SSLError:
                self._flush()  # an alert that says why
                raise
            self._feed()
        raise OSError("too many records in a handshake")

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        """Reads from one record; 0 is the end. Raises one of BLOCKED, and OSError."""
        tls = self._tls
        for _ in range(_EMPTY_RECORDS):
            if not tls.pending():
                self._feed()
            try:
                return tls.read(nbytes or len(buffer), buffer)  # type: ignore[return-value]  # typeshed: an int if there is a buffer
            except ssl.SSLWantReadError:
                self._flush()
            except (ssl.SSLEOFError, ssl.SSLZeroReturnError):
                return 0
        raise OSError("too many records without data")

    def send(self, data: Any, flags: int = 0) -> int:
        """Encrypts and sends as much as the kernel accepts. Raises one of BLOCKED if that is nothing."""
        if self._unsent:
            self._flush()
        size, sent = len(data), self._owed
        self._owed = 0
        whole = size <= _RECORD_BYTES
        while sent < size:
            piece = data if whole and not sent else memoryview(data)[sent : sent + _RECORD_BYTES]
            self._tls.write(piece)
            encrypted = self._outgoing.read()
            try:
                took = _send(self, encrypted)
            except BlockingIOError:
                took = 0
            if took != len(encrypted):
                self._unsent, self._owed = memoryview(encrypted)[took:], len(piece)
                if sent:
                    return sent
                raise BlockingIOError
            sent += len(piece)
        return sent

    def close_notify(self) -> None:
        """Raises SSLWantWriteError if it must be called again when the socket is writable, and OSError."""
        try:
            self._tls.unwrap()
        except (ssl.SSLError, ValueError):
            pass  # the client's is missing, or something else came: nothing that is read matters now
        self._flush()

    def has_unread(self) -> bool:
        return bool(self._received or self._tls.pending())

    def _feed(self) -> None:
        """Gives OpenSSL one more record, or the end. Raises BlockingIOError if it has not come yet, and OSError."""
        received = self._received
        while (size := _record_size(received)) > len(received):
            got = _receive_into(self, _buffer)
            if not got:
                self._incoming.write_eof()
                return
            received = self._received = received + _buffer[:got]
        if self._hello is not None:
            self._hello = _hello_header(self._hello, received[:size])
        self._incoming.write(received[:size])
        self._received = received[size:]

    def _flush(self) -> None:
        """Sends what OpenSSL has to say of its own, and what was not sent. Raises SSLWantWriteError, and OSError."""
        if self._outgoing.pending:
            said = self._outgoing.read()
            self._unsent = bytes(self._unsent) + said
            if self._hello is not None:
                self._hello = b"" if said.startswith(_RETRY, _RETRY_AT) else None
        if not self._unsent:
            return
        try:
            took = _send(self, self._unsent)
        except BlockingIOError:
            took = 0
        self._unsent = self._unsent[took:]
        if self._unsent:
            raise ssl.SSLWantWriteError("the kernel does not accept more")


def _hello_header(known: bytes, record: bytes) -> bytes:
    """The header of a ClientHello, as far as it is known with this record too. Raises OSError if it announces too
    much.
    """
    if record.startswith(HANDSHAKE):
        known += record[_HEADER_BYTES : _HEADER_BYTES + _HELLO_HEADER_BYTES - len(known)]
    if len(known) == _HELLO_HEADER_BYTES and int.from_bytes(known[1:], "big") > _HELLO_BYTES - _HELLO_HEADER_BYTES:
        raise OSError("a ClientHello that is too long")
    return known


def _record_size(received: bytes) -> int:
    """The size of the first record, as far as it is known. Raises OSError if it is none."""
    if received and (received[0] not in _RECORD_TYPES or received[1:2] not in (b"", b"\3")):
        raise OSError("not a TLS record")
    if len(received) < _HEADER_BYTES:
        return _HEADER_BYTES
    size = _HEADER_BYTES + int.from_bytes(received[3:_HEADER_BYTES], "big")
    if size > _MOST_BYTES:
        raise OSError("a TLS record that is too long")
    return size


class Certificate:
    """A certificate with its chain and its key, from files. Raises ConfigError.

    ``trusting``: for requests to this server itself, under whatever name; it trusts this certificate, and no authority.
    """

    def __init__(self, chain: Path, key: Path | None = None) -> None:
        """``key``: None if it is in the file of the chain."""
        self._chain = chain
        self._key = key
        self._context = _load(chain, key)
        self.trusting = _trusting(chain)

    def wrap(self, sock: socket.SocketType) -> TLSSocket:
        """Takes the connected socket over; the handshake has not begun."""
        return TLSSocket(sock, self._context)

    def reload(self) -> None:
        """Reads the files again, for new connections. If they cannot be used, the old certificate stays in use."""
        try:
            self._context, self.trusting = _load(self._chain, self._key), _trusting(self._chain)
        except ConfigError as error:
            detail = f"{error}; the old certificate stays in use"
            logs.event(Event.CERTIFICATE_FAILED, logging.ERROR, detail=detail)
        else:
            logs.event(Event.CERTIFICATE_LOADED, path=self._chain)


def end(sock: socket.SocketType) -> socket.SocketType:
    """Ends our side: close_notify if it is encrypted, and FIN. Returns the socket, no longer encrypted, for reading
    what the client sends until its end. Raises SSLWantWriteError if it must be called again when the socket is
    writable, and OSError.
    """
    if not isinstance(sock, TLSSocket):
        sock.shutdown(socket.SHUT_WR)
        return sock
    sock.close_notify()
    sock.shutdown(socket.SHUT_WR)
    return socket.socket(fileno=sock.detach())


def has_unread(sock: socket.SocketType) -> bool:
    """Whether the client has sent bytes that were not read yet."""
    try:
        if isinstance(sock, TLSSocket) and sock.has_unread():
            return True
        return bool(socket.SocketType.recv(sock, 1, socket.MSG_PEEK))
    except OSError:
        return False


def _load(chain: Path, key: Path | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS)
    context.set_alpn_protocols(["http/1.1"])
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    texts = _read("--tls-cert", chain), b"" if key is None else _read("--tls-key", key)
    try:
        context.load_cert_chain(chain, key, password=lambda: "")  # without it, OpenSSL asks on the terminal
    except OSError as error:  # ssl.SSLError is one
        raise ConfigError(_refusal(error, f"--tls-cert {chain}", f"--tls-key {key}" if key else "", *texts)) from None
    return context


def _trusting(chain: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        context.load_verify_locations(chain)
    except OSError as error:
        raise ConfigError(f"--tls-cert {chain}: OpenSSL cannot use the certificate: {error}") from None
    return context


def _read(option: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read {option} {path}: {error.strerror}") from None


def _refusal(error: OSError, chain: str, key: str, chain_text: bytes, key_text: bytes) -> str:
    """OpenSSL's reason is "PEM lib" for nearly everything."""
    reason = getattr(error, "reason", None)
    if reason == "KEY_VALUES_MISMATCH":
        return f"{key or chain}: the key does not belong to the certificate{f' of {chain}' if key else ''}"
    if b"BEGIN CERTIFICATE-" not in chain_text:
        return f"{chain}: has no certificate in PEM format (-----BEGIN CERTIFICATE-----)"
    if b"ENCRYPTED" in (key_text or chain_text):
        return f"{key or chain}: the key is encrypted; decrypt it with openssl pkey -in FILE -out NEW"
    if b"PRIVATE KEY-" not in (key_text or chain_text):
        return (
            f"{key or chain}: has no private key in PEM format; {'choose' if key else 'give'} its file with --tls-key"
        )
    return f"{key or chain}: OpenSSL cannot use the certificate and its key: {reason or error}"
