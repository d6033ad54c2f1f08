"""Certificates and their renewal; then TLS from end to end, with a server process."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from pushcompat import Publisher, PublishError, logs
from pushcompat.errors import ConfigError
from pushcompat.tls import BLOCKED, Certificate, TLSSocket

from .certificates import make, name_of, new_key, pem, write_pair
from .chromium import Profile, needed
from .harness import CERTIFICATE, KEY, PATIENCE_S, Client, Server, client_tls, running
from .test_systemd import activated
from .wiretap import Wiretap
from .workers import Workers, alive

TLS = ("--tls-cert", str(CERTIFICATE))
NOT_TLS = (
    b"This port speaks TLS: use https:// instead of http://, and wss:// instead of ws://; "
    b"if a load balancer sends the PROXY protocol, switch it off.\n"
)


# Certificates


def negotiated(certificate: Certificate, context: ssl.SSLContext) -> tuple[ssl.SSLSocket, TLSSocket]:
    """Both ends after a handshake in this process. Raises SSLError."""
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    ours.setblocking(False)
    server = certificate.wrap(ours)
    client = context.wrap_socket(theirs, server_hostname="localhost", do_handshake_on_connect=False)
    assert isinstance(server, TLSSocket)
    waiting: set[ssl.SSLSocket | TLSSocket] = {client, server}
    while waiting:
        for end in list(waiting):
            try:
                end.do_handshake()
                waiting.remove(end)
            except BLOCKED:
                pass
            except ssl.SSLError:
                client.close()
                server.close()
                raise
    return client, server


def anything() -> ssl.SSLContext:
    """A client that accepts any certificate, and any version."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def served(certificate: Certificate, context: ssl.SSLContext | None = None) -> str:
    """The name in the certificate that a client gets."""
    client, server = negotiated(certificate, context or anything())
    with client, server:
        der = client.getpeercert(binary_form=True)
    assert der is not None
    return name_of(der)


def test_http_is_negotiated_without_compression_and_with_forward_secrecy() -> None:
    for newest in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        context = client_tls()
        context.maximum_version = newest
        context.set_alpn_protocols(["h2", "http/1.1"])
        client, server = negotiated(Certificate(CERTIFICATE), context)
        with client, server:
            assert client.selected_alpn_protocol() == "http/1.1"
            assert client.compression() is None
            cipher = client.cipher()
            assert cipher is not None
            assert cipher[0].startswith(("ECDHE-ECDSA-AES", "TLS_"))


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated")
@pytest.mark.parametrize(
    ("version", "ciphers"),
    [(ssl.TLSVersion.TLSv1_1, "ALL:@SECLEVEL=0"), (ssl.TLSVersion.TLSv1_2, "ECDHE+AES:!AESGCM:!AESCCM")],
    ids=["TLS 1.1", "CBC"],
)
def test_old_versions_and_ciphers_are_refused(version: ssl.TLSVersion, ciphers: str) -> None:
    context = anything()
    context.set_ciphers(ciphers)
    context.minimum_version = context.maximum_version = version
    with pytest.raises(ssl.SSLError):
        negotiated(Certificate(CERTIFICATE), context)


def test_the_key_may_be_in_the_file_of_the_certificate_or_in_one_of_its_own(tmp_path: Path) -> None:
    chain, key = write_pair(tmp_path, "apart")
    assert served(Certificate(chain, key)) == "apart"
    both = tmp_path / "both.pem"
    both.write_bytes(key.read_bytes() + chain.read_bytes())
    assert served(Certificate(both)) == "apart"


def test_the_rest_of_the_chain_is_sent(tmp_path: Path) -> None:
    chain, key = write_pair(tmp_path, "first")
    chain.write_bytes(chain.read_bytes() + make(new_key("EC"), "second"))
    ours, theirs = socket.socketpair()
    tap = Wiretap(theirs, ssl.TLSVersion.TLSv1_2)  # whose certificates are in the clear
    ours.setblocking(False)
    with Certificate(chain, key).wrap(ours) as server:
        tap.handshake()
        with pytest.raises(BlockingIOError):
            server.do_handshake()
        with pytest.raises(ssl.SSLCertVerificationError):
            tap.handshake()
    theirs.close()
    assert b"first" in tap.wire
    assert b"second" in tap.wire


def test_files_that_cannot_be_used_are_refused_with_what_to_change(tmp_path: Path) -> None:
    chain, key = write_pair(tmp_path, "good")
    other, encrypted, garbage, empty = (tmp_path / name for name in ("other", "encrypted", "garbage", "empty"))
    other.write_bytes(pem(new_key("EC")))
    encrypted.write_bytes(pem(new_key("EC"), b"secret"))
    garbage.write_bytes(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    empty.write_bytes(b"")
    missing = tmp_path / "missing"
    for files, refusal in {
        (missing, None): f"cannot read --tls-cert {missing}: No such file or directory",
        (chain, missing): f"cannot read --tls-key {missing}: No such file or directory",
        (tmp_path, None): f"cannot read --tls-cert {tmp_path}: Is a directory",
        (empty, None): f"--tls-cert {empty}: has no certificate in PEM format (-----BEGIN CERTIFICATE-----)",
        (key, None): f"--tls-cert {key}: has no certificate in PEM format (-----BEGIN CERTIFICATE-----)",
        (chain, None): f"--tls-cert {chain}: has no private key in PEM format; give its file with --tls-key",
        (chain, chain): f"--tls-key {chain}: has no private key in PEM format; choose its file with --tls-key",
        (chain, encrypted): f"--tls-key {encrypted}: the key is encrypted; decrypt it with openssl pkey -in FILE -out "
        "NEW",
        (chain, other): f"--tls-key {other}: the key does not belong to the certificate of --tls-cert {chain}",
        (garbage, key): f"--tls-key {key}: OpenSSL cannot use the certificate and its key: [SSL] PEM lib",
    }.items():
        with pytest.raises(ConfigError) as error:
            Certificate(*files)
        assert str(error.value).startswith(refusal), files


def test_a_key_needs_a_certificate(tmp_path: Path) -> None:
    from pushcompat.config import Config

    with pytest.raises(ConfigError, match="--tls-key needs --tls-cert"):
        Config(publish_key=KEY, tls_key=tmp_path / "key.pem")


# Renewal


def events(caplog: pytest.LogCaptureFixture) -> list[tuple[int, str]]:
    return [(record.levelno, record.getMessage()) for record in caplog.records]


@pytest.mark.parametrize("kind", ["EC", "RSA"])
def test_a_renewed_certificate_is_what_new_connections_get(tmp_path: Path, kind: str) -> None:
    """Whatever the type of its key is: one context would serve the old one beside it."""
    certificate = Certificate(*write_pair(tmp_path, "old", "RSA"))
    assert served(certificate) == "old"
    write_pair(tmp_path, "new", kind)
    certificate.reload()
    assert served(certificate) == "new"
    only_rsa = anything()
    only_rsa.maximum_version = ssl.TLSVersion.TLSv1_2
    only_rsa.set_ciphers("ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES128-GCM-SHA256")
    assert served(certificate, only_rsa) == "new"


@pytest.mark.parametrize("breakage", ["garbage", "another key", "missing", "half"])
def test_a_certificate_stays_in_use_while_the_files_are_broken(
    tmp_path: Path, breakage: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "_write", None)  # as it is before another test configures the process
    monkeypatch.setattr(logs, "_level", logging.INFO)
    chain, key = write_pair(tmp_path, "old")
    certificate = Certificate(chain, key)
    if breakage == "garbage":
        chain.write_text("garbage")
    elif breakage == "another key":
        key.write_bytes(pem(new_key("EC")))
    elif breakage == "missing":
        key.unlink()
    else:
        chain.write_bytes(chain.read_bytes()[:300])
    with caplog.at_level(logging.INFO, "pushcompat"):
        certificate.reload()
    ((level, text),) = events(caplog)
    assert level == logging.ERROR
    assert "certificate_failed" in text
    assert "the old certificate stays in use" in text
    assert served(certificate) == "old"
    write_pair(tmp_path, "new")
    certificate.reload()
    assert served(certificate) == "new"


# The server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    yield from running(tmp_path_factory.mktemp("tls"), *TLS, "--demo", "--head-timeout", "1")


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    with server.connect() as client:
        yield client


def test_one_connection_is_used_for_publishes_polls_and_pages(client: Client) -> None:
    for number in range(5):
        client.publish("mixed", b"x" * 40_000)
        assert client.response()[0] == 200
        client.request("GET", "/healthz")
        assert client.response()[2] == b"ok\n"
        assert len(client.retained("mixed")) == number + 1


def test_requests_for_the_hub_and_for_pages_may_come_in_one_record(client: Client) -> None:
    page, poll = (
        f"GET {path} HTTP/1.1\r\nHost: test\r\n\r\n".encode() for path in ("/healthz", "/channels/pipelined?wait=0")
    )
    body = f"POST /channels/pipelined HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer {KEY}\r\nContent-Length: 9000"
    publish = body.encode() + b"\r\n\r\n" + b"x" * 9000
    client.send(page + publish + page + poll + page + page)
    for expected in (b"ok\n", b'{"id":', b"ok\n", b'{"cursor":', b"ok\n", b"ok\n"):
        assert client.response()[2].startswith(expected)


def test_a_page_larger_than_a_record_arrives_whole(server: Server, client: Client) -> None:
    for _ in range(3):
        client.request("GET", "/static/pushcompat.js")
        status, fields, body = client.response()
        assert (status, len(body)) == (200, int(fields["content-length"]))
        assert len(body) > 32 * 1024


def test_the_demo_page_takes_a_comment_and_publishes_over_tls(server: Server, client: Client) -> None:
    """The server trusts its own certificate, which no authority has signed."""
    form = b"name=Ann&text=hello"
    client.request("POST", "/demo/chat/comments", form, Content_Type="application/x-www-form-urlencoded")
    assert client.response()[0] == 204
    client.request("GET", "/demo/chat/comments")
    (comment,) = json.loads(client.response()[2])["comments"]
    assert (comment["name"], comment["text"]) == ("Ann", "hello")
    assert len(client.retained("chat")) == 1


@pytest.mark.parametrize("target", ["/healthz", "/channels/a?wait=0"])
def test_the_last_response_on_a_connection_is_followed_by_close_notify_and_fin(server: Server, target: str) -> None:
    """Also though the client has sent what nobody reads."""
    with socket.create_connection((server.host, server.port)) as sock:
        client = Wiretap(sock)
        while not client.handshake():
            pass
        request = f"GET {target} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"
        client.send(request.encode(), b"x" * 10_000, b"y" * 10_000)
        response = client.to_end()
        assert response.startswith(b"HTTP/1.1 200 OK\r\n")
        client.records()


def test_plain_http_is_answered_with_a_sentence_in_plain_text(server: Server) -> None:
    for method in ("GET", "POST", "OPTIONS", "BREW"):
        with Client(server.host, server.port) as client:
            client.request(method, "/channels/a", b"x" * 50_000)
            status, fields, body = client.response()
            assert (status, fields["content-type"]) == (400, "text/plain; charset=utf-8")
            assert body == NOT_TLS
            assert client.to_end() == b""


def test_a_handshake_must_be_complete_within_the_time_for_a_head(server: Server) -> None:
    hello = b"\x16\x03\x01"
    for sent in (b"", hello):
        with Client(server.host, server.port) as client:
            client.send(sent)
            assert client.to_end() == b""


def test_clients_in_python_trust_the_authority_that_ssl_cert_file_names(server: Server) -> None:
    trusting = {**os.environ, "SSL_CERT_FILE": str(CERTIFICATE)}
    common = [sys.executable, "-m", "pushcompat"]
    done = subprocess.run(
        [*common, "publish", "--url", server.url, "--publish-key", KEY, "python", "hello"],
        env=trusting, capture_output=True, timeout=PATIENCE_S, check=True,
    )  # fmt: skip
    assert json.loads(done.stdout)["channels"] == {"python": {"subscribers": 0}}
    for transport in ("websocket", "eventsource", "longpoll"):
        options = ["--url", server.url, "--transport", transport, "--earliest", "--count", "1"]
        done = subprocess.run(
            [*common, "listen", *options, "python"], env=trusting, capture_output=True, timeout=PATIENCE_S, check=True
        )
        assert json.loads(done.stdout)["data"] == "hello"


def test_an_application_may_say_whom_it_trusts(server: Server) -> None:
    with closing(Publisher(server.url, KEY, ssl_context=client_tls())) as publisher:
        assert publisher.publish("own", "hi").channels == {"own": 0}


def test_clients_in_python_refuse_a_certificate_that_nobody_vouches_for(server: Server) -> None:
    with closing(Publisher(server.url, KEY, timeout=1)) as publisher, pytest.raises(PublishError, match="certificate"):
        publisher.publish("python", "hello")


@needed
def test_a_page_in_a_browser_is_live(server: Server, chromium: Profile) -> None:
    page = chromium.open("about:blank")
    page.call("Security.setIgnoreCertificateErrors", ignore=True)
    page.call("Page.navigate", url=f"{server.url}/demo/chat")
    page.wait_for("document.body?.innerText.includes('Live by WebSocket')")


def test_a_renewed_certificate_is_served_after_sighup_and_nobody_is_disconnected(tmp_path: Path) -> None:
    chain, key = write_pair(tmp_path, "old")
    for server in running(tmp_path / "state", "--tls-cert", str(chain), "--tls-key", str(key)):
        server.tls = anything()
        with server.connect() as stream:
            stream.request("GET", "/channels/live?transport=eventsource")
            stream.head()
            assert peer_of(stream) == "old"
            for content, expected in ((b"broken", "old"), (None, "new")):
                if content is None:
                    write_pair(tmp_path, "new")
                else:
                    chain.write_bytes(content)
                server.process.send_signal(signal.SIGHUP)
                server.wait_for_log("certificate_loaded" if content is None else "certificate_failed .*stays in use")
                with server.connect() as other:
                    assert peer_of(other) == expected
            server.log = [line for line in server.log if "certificate_failed" not in line]
            server.publish("live", "still here")
            while stream.event().get("data") != "still here":
                pass


def peer_of(client: Client) -> str:
    assert isinstance(client.socket, ssl.SSLSocket)
    der = client.socket.getpeercert(binary_form=True)
    assert der is not None
    return name_of(der)


# Workers, sockets of systemd, Unix sockets


def names_served(server: Server, count: int = 8) -> set[str]:
    """By whichever workers these connections reach."""
    found = set()
    for _ in range(count):
        with server.connect() as client:
            client.request("GET", "/healthz")
            assert client.response()[2] == b"ok\n"
            found.add(peer_of(client))
    return found


def test_workers_roll_to_a_renewed_certificate_and_stay_if_it_is_broken(tmp_path: Path) -> None:
    chain, key = write_pair(tmp_path, "old")
    server = Workers(tmp_path / "state", "--tls-cert", str(chain), "--tls-key", str(key))
    server.tls = anything()
    try:
        assert names_served(server) == {"old"}
        before = server.pids()
        chain.write_text("broken")
        server.process.send_signal(signal.SIGHUP)
        line = server.wait_for_log("worker_failed")
        assert "has no certificate in PEM format" in line
        assert "the worker continues unchanged" in line
        assert names_served(server) == {"old"}
        assert [alive(pid) for pid in before.values()] == [True, True]
        write_pair(tmp_path, "new")
        server.roll()
        assert names_served(server) == {"new"}
    finally:
        assert server.stop() == 0


def test_a_worker_that_dies_while_the_certificate_is_broken_is_replaced_when_it_is_not(tmp_path: Path) -> None:
    chain, key = write_pair(tmp_path, "old")
    server = Workers(tmp_path / "state", "--tls-cert", str(chain), "--tls-key", str(key))
    server.tls = anything()
    try:
        pids = server.pids()
        chain.write_text("broken")
        os.kill(pids[1], signal.SIGKILL)
        server.wait_for_log("worker_failed")
        assert names_served(server) == {"old"}
        write_pair(tmp_path, "new")
        server.wait_for(lambda: "new" in names_served(server))
    finally:
        assert server.stop() == 0


@pytest.mark.parametrize("options", [(), ("--workers", "2")], ids=["alone", "workers"])
def test_a_broken_certificate_is_refused_at_the_start(tmp_path: Path, options: tuple[str, ...]) -> None:
    broken = tmp_path / "broken"
    broken.write_text("broken")
    command = [sys.executable, "-m", "pushcompat", "--port", "0", "--state-dir", str(tmp_path), *options]
    done = subprocess.run(
        [*command, "--tls-cert", str(broken)], capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == (
        f"pushcompat: --tls-cert {broken}: has no certificate in PEM format (-----BEGIN CERTIFICATE-----)"
    )


def test_a_unix_socket_stays_plain(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    command = [sys.executable, "-m", "pushcompat", "--unix-socket", str(path), "--state-dir", str(tmp_path), *TLS]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process, socket.socket(socket.AF_UNIX) as client:
        assert process.stdout is not None
        assert b"listens on" in process.stdout.readline()
        client.settimeout(PATIENCE_S)
        client.connect(str(path))
        client.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
        assert client.recv(1000).startswith(b"HTTP/1.1 200 OK\r\n")
        process.terminate()


@pytest.mark.parametrize("options", [(), ("--workers", "2")], ids=["alone", "workers"])
def test_a_socket_of_systemd_is_encrypted(tmp_path: Path, options: tuple[str, ...]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        host, port = listener.getsockname()
        with activated(tmp_path, listener, *options, *TLS) as process, Client(host, port, tls=client_tls()) as client:
            client.request("GET", "/healthz")
            assert client.response()[2] == b"ok\n"
            process.terminate()
            process.communicate(timeout=PATIENCE_S)
