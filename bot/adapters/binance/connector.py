"""How a host is reached: certificates, proxies and the time that connecting may take, from the environment.

Heeded are `REQUESTS_CA_BUNDLE` and `SSL_CERT_FILE`, for https also `HTTPS_PROXY` and `NO_PROXY`.
"""

import base64
import os
import select
import ssl
import time
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

import certifi

from bot.ports import ConfigurationRefused

IDLE_S = 50.0  # after this a connection may be dead without a word: some router on the way forgot it


class NotSent(Exception):
    """There is no connection: not a byte of the request left. The text is the cause."""


class Connector:
    """Opens connections to one host. Thread-safe. The environment is read once, here."""

    def __init__(self, rest_url: str, connect_timeout_ms: int, read_timeout_ms: int) -> None:
        """Prepare for a scheme, host and port. Raises ConfigurationRefused if the certificates cannot be read."""
        parts = urlsplit(rest_url)
        self.host = parts.netloc
        self._host, self._port = parts.hostname or "", parts.port
        self._connect_s, self._read_s = connect_timeout_ms / 1000, read_timeout_ms / 1000
        self._tls: ssl.SSLContext | None = None
        self._tunnel: tuple[str, int | None, dict[str, str]] | None = None
        if parts.scheme == "https":
            self._tls = _certificates()
            proxy = getproxies().get("https", "")
            if proxy and not proxy_bypass(parts.netloc):
                self._tunnel = _proxy(proxy)

    def open(self) -> HTTPConnection:
        """Return a new connection, with the read time-out set. Raises NotSent."""
        host, port = (self._host, self._port) if self._tunnel is None else self._tunnel[:2]
        connection = (
            HTTPConnection(host, port, timeout=self._connect_s)
            if self._tls is None
            else HTTPSConnection(host, port, timeout=self._connect_s, context=self._tls)
        )
        if self._tunnel is not None:
            connection.set_tunnel(self._host, self._port or 443, self._tunnel[2])
        try:
            connection.set_debuglevel(0)  # whatever the process is set to: it prints heads, the key in them
            connection.connect()  # which also switches Nagle's algorithm off
            connection.sock.settimeout(self._read_s)
        except (OSError, HTTPException, ValueError) as error:
            connection.close()
            raise NotSent(cause(error)) from None
        return connection


def is_alive(connection: HTTPConnection, since: float) -> bool:
    """Return whether an idle connection can be used; closed if not. `since`: monotonic seconds of its last use.

    What the server has closed, or written to unasked, has something to read.
    """
    is_young = time.monotonic() - since < IDLE_S
    poll = select.poll()
    poll.register(connection.sock, select.POLLIN)
    if is_young and not poll.poll(0):
        return True
    timeout = connection.sock.gettimeout()
    try:
        connection.sock.settimeout(0)
        connection.sock.recv(1)
    except (BlockingIOError, ssl.SSLWantReadError):
        if is_young:  # only TLS had something to say
            connection.sock.settimeout(timeout)
            return True
    except OSError:
        pass
    connection.close()
    return False


def cause(error: BaseException) -> str:
    """Return one line: the operating system's words where it has any."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split())[:200] or type(error).__name__


def _certificates() -> ssl.SSLContext:
    given = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("SSL_CERT_FILE")
    if not given:
        context = ssl.create_default_context()
        context.load_verify_locations(certifi.where())
        return context
    try:
        if os.path.isdir(given):
            return ssl.create_default_context(capath=given)
        return ssl.create_default_context(cafile=given)
    except OSError as error:
        raise ConfigurationRefused(
            f"certificates {given} cannot be read ({cause(error)}): mend REQUESTS_CA_BUNDLE or SSL_CERT_FILE"
        ) from None


def _proxy(url: str) -> tuple[str, int | None, dict[str, str]]:
    """Return host, port and headers for the CONNECT request."""
    parts = urlsplit(url if "://" in url else f"http://{url}")
    if parts.username is None:
        return parts.hostname or "", parts.port or 80, {}
    user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    basic = base64.b64encode(user.encode()).decode()
    return parts.hostname or "", parts.port or 80, {"Proxy-Authorization": f"Basic {basic}"}
