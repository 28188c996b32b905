"""A proxy before moto that writes down which AWS actions are called, on which resources."""

import gzip
import http.client
import json
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

from tests.aws.servers import REGION
from tests.deploy.stack import ACCOUNT


class Call(NamedTuple):
    """One action as IAM sees it; `context` is what conditions look at."""

    action: str
    resource: str
    context: tuple[tuple[str, str], ...] = ()


def calls_of(path: str, headers: Any, body: bytes) -> list[Call]:
    """What a signed request asks for: one call a resource."""
    scope = re.search(r"Credential=[^/]+/\d+/[^/]+/([a-z0-9-]+)/aws4_request", headers.get("Authorization", ""))
    assert scope is not None, "a request that is not signed"
    service = {"monitoring": "cloudwatch"}.get(scope[1], scope[1])
    if headers.get("Content-Encoding") == "gzip":
        body = gzip.decompress(body)
    target, operation = headers.get("X-Amz-Target", ""), re.search(r"/operation/(\w+)$", path)
    name = target.rpartition(".")[2] or (operation[1] if operation else parse_qs(body.decode())["Action"][0])
    action = f"{service}:{name}"
    match service:
        case "dynamodb":
            asked = json.loads(body)
            tables = [asked["TableName"]] if "TableName" in asked else list(asked["RequestItems"])
            return [Call(action, f"arn:aws:dynamodb:{REGION}:{ACCOUNT}:table/{table}") for table in tables]
        case "secretsmanager":
            return [Call(action, json.loads(body)["SecretId"])]
        case "cloudwatch":
            # JSON, CBOR or a form: the name stands in all of them, between bytes that no name has.
            found = re.search(rb"Namespace[^A-Za-z]+?[\x60-\x7b]?([A-Z][A-Za-z0-9/_-]*)", body)
            return [Call(action, "*", (("cloudwatch:namespace", found[1].decode()),) if found else ())]
    return [Call(action, "?")]


@contextmanager
def recording(upstream: str) -> Iterator[tuple[str, set[Call]]]:
    """Yield the proxy's address and the calls that came so far."""
    host, calls = urlsplit(upstream).netloc, set[Call]()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            calls.update(calls_of(self.path, self.headers, body))
            connection = http.client.HTTPConnection(host, timeout=30)
            try:
                connection.request("POST", self.path, body, dict(self.headers.items()))
                answer = connection.getresponse()
                said = answer.read()
            finally:
                connection.close()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("connection", "content-length", "transfer-encoding", "date", "server"):
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        def log_message(self, *arguments: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            # Who was killed, or waited no longer, hears no answer; the call was understood.
            if not isinstance(sys.exc_info()[1], OSError | http.client.HTTPException):
                calls.add(Call("a request that nobody understood", "?"))

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", calls
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
