"""The thin HTTP session: what is kept alive, what is noticed before a byte leaves, and what may have left."""

import base64
import datetime
import ipaddress
import socket
import ssl
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.client import HTTPException

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from bot.adapters.binance.connector import Connector, NotSent
from bot.adapters.binance.session import Session
from bot.ports import ConfigurationRefused
from tests.adapters.servers import Wire, http_reply
from tests.support.ports import unused_port

ENVIRONMENT = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE")


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch):
    for name in ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
def wire():
    with closing(Wire(lambda _: http_reply())) as server:
        yield server


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate of 127.0.0.1 that nobody else has signed, as (file, server context)."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "bulkhead tests")])
    now = datetime.datetime.now(datetime.UTC)
    one = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    one = one.not_valid_before(now - datetime.timedelta(days=1)).not_valid_after(now + datetime.timedelta(days=1))
    here = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    signed = one.add_extension(here, critical=False).sign(key, hashes.SHA256())
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(signed.public_bytes(serialization.Encoding.PEM) + secret)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return path, context


def session_to(port, scheme="http", connect_ms=60_000, read_ms=60_000, headers=()):
    return Session(Connector(f"{scheme}://127.0.0.1:{port}", connect_ms, read_ms), dict(headers))


class TestRequests:
    def test_a_form_leaves_in_one_piece(self, wire):
        session = session_to(wire.port, headers={"X-MBX-APIKEY": "k"})
        reply = session.post("http://h/api/v3/order", data="a=1&b=2", timeout=3, headers={})
        assert (reply.status_code, reply.content) == (200, b"{}")
        ((request,),) = wire.received
        assert request.decode().split("\r\n") == [
            "POST /api/v3/order HTTP/1.1",
            f"Host: 127.0.0.1:{wire.port}",
            "X-MBX-APIKEY: k",
            "Content-Type: application/x-www-form-urlencoded",
            "Content-Length: 7",
            "",
            "a=1&b=2",
        ]

    def test_put(self, wire):
        session_to(wire.port).put("http://h/api/v3/userDataStream", data="listenKey=k")
        ((request,),) = wire.received
        assert request.startswith(b"PUT /api/v3/userDataStream HTTP/1.1\r\n")
        assert request.endswith(b"Content-Length: 11\r\n\r\nlistenKey=k")

    def test_a_query(self, wire):
        session = session_to(wire.port)
        session.get("http://h/api/v3/time", params="")
        session.get("http://h/api/v3/klines", params="symbol=X&limit=1")
        lines = [request.split(b"\r\n")[0] for request in wire.received[0]]
        assert lines == [b"GET /api/v3/time HTTP/1.1", b"GET /api/v3/klines?symbol=X&limit=1 HTTP/1.1"]

    def test_names_of_headers_come_in_lower_case(self, wire):
        wire.answer = lambda _: http_reply(b"no", "429 Too Many", "Retry-After: 7")
        reply = session_to(wire.port).get("http://h/")
        assert (reply.status_code, reply.headers["retry-after"], reply.content) == (429, "7", b"no")

    def test_a_redirect_is_a_reply_like_any_other(self, wire):
        with closing(Wire(lambda _: http_reply())) as other:
            wire.answer = lambda _: http_reply(b"", "302 Found", f"Location: http://127.0.0.1:{other.port}/")
            assert session_to(wire.port).get("http://h/").status_code == 302
            assert other.received == []

    def test_a_body_in_chunks(self, wire):
        wire.answer = lambda _: b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
        session = session_to(wire.port)
        assert [session.get("http://h/").content for _ in range(2)] == [b"abcde"] * 2
        assert len(wire.received) == 1


class TestKeptAlive:
    def test_one_connection_serves_request_after_request(self, wire):
        session = session_to(wire.port)
        for _ in range(5):
            session.get("http://h/")
        assert len(wire.received) == 1

    def test_connections_opened_ahead_are_used(self, wire):
        session = session_to(wire.port)
        session.warm(3)
        together, waiting = threading.Barrier(3), []

        def answer(_):
            waiting.append(together.wait(60))
            return http_reply()

        wire.answer = answer
        with ThreadPoolExecutor(3) as pool:
            list(pool.map(lambda _: session.get("http://h/"), range(3)))
        assert len(wire.received) == 3

    def test_one_that_the_server_closed_is_replaced_before_a_byte_is_lost(self, wire):
        session = session_to(wire.port)
        session.warm(2)
        session.get("http://h/")
        wire.await_connections(2)
        wire.hang_up()
        wait_for_end(wire)
        assert session.post("http://h/", data="x=1").status_code == 200
        assert sum(len(pieces) for pieces in wire.received) == 2
        assert len(wire.received) == 3

    def test_warming_replaces_the_dead_and_keeps_the_living(self, wire):
        session = session_to(wire.port)
        session.warm(2)
        session.warm(2)
        session.get("http://h/")
        wire.await_connections(2)
        assert len(wire.received) == 2
        wire.hang_up()
        wait_for_end(wire)
        session.warm(2)
        session.get("http://h/")
        wire.await_connections(4)
        assert len(wire.received) == 4

    def test_one_that_was_long_idle_is_not_trusted(self, wire, monkeypatch):
        session = session_to(wire.port)
        session.get("http://h/")
        monkeypatch.setattr("bot.adapters.binance.connector.IDLE_S", 0)
        session.get("http://h/")
        assert len(wire.received) == 2

    def test_what_was_sent_unasked_is_no_answer(self, wire):
        """As a server that says 408 before it closes."""
        wire.answer = lambda _: http_reply(b"mine") + http_reply(b"unasked", "408 Request Timeout")
        session = session_to(wire.port)
        assert [session.get("http://h/").content for _ in range(3)] == [b"mine"] * 3

    def test_the_server_may_end_it(self, wire):
        wire.answer = lambda _: http_reply(b"{}", "200 OK", "Connection: close")
        session = session_to(wire.port)
        assert [session.get("http://h/").content for _ in range(2)] == [b"{}"] * 2
        assert len(wire.received) == 2

    def test_after_a_failure_the_connection_is_gone(self, wire):
        wire.answer = lambda _: b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"
        session = session_to(wire.port, read_ms=100)
        with pytest.raises(TimeoutError):
            session.get("http://h/")
        wire.answer = lambda _: http_reply()
        session._connector._read_s = 60
        assert session.get("http://h/").content == b"{}"
        assert len(wire.received) == 2

    def test_closing(self, wire):
        session = session_to(wire.port)
        session.warm(2)
        wire.await_connections(2)
        session.close()
        wait_for_end(wire)


def wait_for_end(wire):
    for thread in wire._threads[1:]:
        thread.join(60)
        assert not thread.is_alive()


class TestWhatMayHaveLeft:
    @pytest.mark.parametrize(
        "answer",
        [None, b"", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", b"what\r\n\r\n"],
        ids=repr,
    )
    def test_anything_after_the_first_byte_is_not_called_unsent(self, wire, answer):
        def hang_up_after(_):
            if answer:
                wire._made[0].sendall(answer)

        wire.answer = hang_up_after
        with pytest.raises((OSError, HTTPException)):
            session_to(wire.port).post("http://h/", data="x=1")

    def test_refused(self):
        with pytest.raises(NotSent, match="Connection refused"):
            session_to(unused_port()).get("http://h/")

    def test_no_such_host(self):
        session = Session(Connector("http://no-such-host.invalid:1", 60_000, 60_000), {})
        with pytest.raises(NotSent):
            session.get("http://h/")

    def test_nobody_picks_up(self):
        """A full queue of connections: the handshake is never answered."""
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen(0)
            port = listener.getsockname()[1]
            held = [socket.socket() for _ in range(4)]
            for one in held:
                one.setblocking(False)
                one.connect_ex(("127.0.0.1", port))
            with pytest.raises(NotSent, match="timed out"):
                session_to(port, connect_ms=100).get("http://h/")
            for one in held:
                one.close()


class TestTls:
    def test_a_certificate_that_nobody_vouches_for(self, certificate):
        with closing(Wire(lambda _: http_reply(), certificate[1])) as wire:
            with pytest.raises(NotSent, match="certificate"):
                session_to(wire.port, "https").get("https://h/")
            assert wire.received == [[]]

    @pytest.mark.parametrize("name", ["REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"])
    def test_a_bundle_from_the_environment(self, certificate, monkeypatch, name):
        monkeypatch.setenv(name, str(certificate[0]))
        with closing(Wire(lambda _: http_reply(), certificate[1])) as wire:
            session = session_to(wire.port, "https")
            session.warm(1)  # with the server's session tickets still to be read
            assert [session.get("https://h/").status_code for _ in range(3)] == [200] * 3
            assert len(wire.received) == 1
            wire.hang_up()
            wait_for_end(wire)
            assert session.get("https://h/").status_code == 200

    def test_a_bundle_that_is_none(self, tmp_path, monkeypatch):
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "nothing.pem"))
        with pytest.raises(ConfigurationRefused, match="mend REQUESTS_CA_BUNDLE"):
            session_to(1, "https")


class TestProxy:
    @pytest.fixture
    def proxied(self, certificate, monkeypatch):
        """A session to a host that only the proxy can reach, and what the proxy was asked."""
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate[0]))
        asked = []
        with closing(Wire(lambda _: http_reply(b"through"), certificate[1])) as wire, closing(Proxy(wire, asked)) as p:
            monkeypatch.setenv("HTTPS_PROXY", f"http://user:p%40ss@127.0.0.1:{p.port}")
            yield Session(Connector("https://127.0.0.1:1", 60_000, 60_000), {}), asked, p

    def test_by_connect(self, proxied):
        session, asked, _ = proxied
        assert session.get("https://h/").content == b"through"
        (head,) = asked
        assert head.startswith(b"CONNECT 127.0.0.1:1 HTTP/1.")
        assert b"Proxy-Authorization: Basic " + base64.b64encode(b"user:p@ss") in head

    def test_one_that_refuses_lets_nothing_out_and_shows_no_password(self, proxied):
        session, _, proxy = proxied
        proxy.verdict = b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n"
        with pytest.raises(NotSent, match="407") as error:
            session.get("https://h/")
        assert "p@ss" not in str(error.value)

    def test_hosts_that_go_without(self, certificate, monkeypatch):
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate[0]))
        monkeypatch.setenv("HTTPS_PROXY", f"127.0.0.1:{unused_port()}")
        with closing(Wire(lambda _: http_reply(), certificate[1])) as wire:
            with pytest.raises(NotSent, match="Connection refused"):
                session_to(wire.port, "https").get("https://h/")
            monkeypatch.setenv("NO_PROXY", "127.0.0.1")
            assert session_to(wire.port, "https").get("https://h/").status_code == 200

    def test_plain_text_needs_none(self, wire, monkeypatch):
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{unused_port()}")
        assert session_to(wire.port).get("http://h/").status_code == 200


class Proxy:
    """Connects whoever says CONNECT to one server, whatever host was asked for."""

    def __init__(self, wire, asked):
        self.verdict = b"HTTP/1.1 200 Connection established\r\n\r\n"
        self._wire, self._asked = wire, asked
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._serve, daemon=True)]
        self._threads[0].start()

    def _serve(self):
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._asked.append(client.recv(65536))
            client.sendall(self.verdict)
            if b" 200 " not in self.verdict:
                client.close()
                continue
            server = socket.create_connection(("127.0.0.1", self._wire.port))
            for one, other in ((client, server), (server, client)):
                self._threads.append(threading.Thread(target=pass_on, args=(one, other), daemon=True))
                self._threads[-1].start()

    def close(self):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._threads[0].join()


def pass_on(one, other):
    try:
        while piece := one.recv(65536):
            other.sendall(piece)
        other.shutdown(socket.SHUT_WR)
    except OSError:
        pass
