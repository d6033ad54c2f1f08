"""TLS: the certificate, and encrypted sockets that the hub and Tornado use like plain ones.

A plain socket is drained when a read did not fill its buffer, and may be written to when the kernel says so. OpenSSL
stands between: what differs is here and in ``hub/sockets``, and nowhere else.

- **Reading.** A read returns at most one record, and more may be decrypted already, which no poller reports. So an
  encrypted socket is drained when a read would block, and not before.
- **Writing.** OpenSSL keeps the record that the kernel did not take, and expects the same bytes again. ``send`` offers
  one record at a time: with more, a client that reads 200 KiB slowly would look like one that reads nothing.
- **The end** is a close_notify, then FIN (``end``). Without close_notify a client cannot tell the end of a response
  from a connection that was cut (RFC 8446 §6.1). ``SSLSocket.shutdown`` must not be called: it drops the encryption,
  and what is sent later is sent in the clear.
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

_RECORD_BYTES = 16 * 1024  # the largest record (RFC 8446 §5.1)
_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"  # of TLS 1.2; those of 1.3 are all sound


class TLSSocket(ssl.SSLSocket):
    """The server's end of an encrypted connection."""

    def send(self, data: Any, flags: int = 0) -> int:
        """Encrypts and sends as much as the kernel accepts. Raises one of BLOCKED if that is nothing."""
        size = len(data)
        if 0 < size <= _RECORD_BYTES:
            return super().send(data)
        sent, view = 0, memoryview(data)
        try:
            while sent < size:
                sent += super().send(view[sent : sent + _RECORD_BYTES])
        except BLOCKED:
            if not sent:
                raise
        return sent


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

    def wrap(self, sock: socket.SocketType) -> ssl.SSLSocket:
        """Takes the connected socket over; the handshake has not begun. Raises OSError, with the socket closed."""
        try:
            # Documented for sockets of ``socket.socket``; it needs nothing but what its base class has.
            return self._context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)  # type: ignore[arg-type]
        except OSError:
            sock.close()
            raise

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
    if not isinstance(sock, ssl.SSLSocket):
        sock.shutdown(socket.SHUT_WR)
        return sock
    try:
        sock.unwrap()
    except ssl.SSLWantWriteError:
        raise
    except (ssl.SSLError, ValueError):
        pass  # close_notify is sent. The client's is missing, or something else came: nothing that is read matters now
    socket.SocketType.shutdown(sock, socket.SHUT_WR)  # of the base class: SSLSocket's would drop the encryption first
    return socket.socket(fileno=sock.detach())


def has_unread(sock: socket.SocketType) -> bool:
    """Whether the client has sent bytes that were not read yet."""
    try:
        if isinstance(sock, ssl.SSLSocket) and sock.pending():
            return True
        return bool(socket.SocketType.recv(sock, 1, socket.MSG_PEEK))
    except OSError:
        return False


def _load(chain: Path, key: Path | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.sslsocket_class = TLSSocket
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
