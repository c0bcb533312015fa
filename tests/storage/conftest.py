"""An S3 endpoint on loopback: moto's server in an environment of its own, behind a proxy that can misbehave."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

SERVER = Path(__file__).resolve().parents[2] / ".venv-s3" / "bin" / "moto_server"
PASSED_ON = {"connection", "keep-alive", "transfer-encoding", "content-length"}
REFUSALS = {
    "denied": (403, "AccessDenied", "Access Denied"),
    "skewed": (
        403,
        "RequestTimeTooSkewed",
        "The difference between the request time and the current time is too large.",
    ),
    "busy": (503, "SlowDown", "Please reduce your request rate."),
    "unknown": (501, "NotImplemented", "A header you provided implies functionality that is not implemented."),
    "throttled": (429, "TooManyRequests", "Slow down."),
}


@dataclass
class Fault:
    """What befalls the next requests.

    kind: a refusal, `truncated`, `slow`, `reset`, `dropped` (done, unanswered) or `late` (done, then answered slowly).
    left: how many requests. method, part, header: which requests; part of the path, how a header's name begins. done:
    a late answer is on its way.
    """

    kind: str
    left: int
    method: str = ""
    part: str = ""
    header: str = ""
    seconds: float = 0.0
    done: bool = False

    def meets(self, method: str, path: str, headers: Iterable[str]) -> bool:
        named = any(name.lower().startswith(self.header) for name in headers)
        return self.left > 0 and self.method in ("", method) and self.part in path and named


@dataclass
class Proxy:
    """Requests pass to a server unless a fault says otherwise; all are noted as `METHOD path`, with their range."""

    upstream: int
    faults: list[Fault] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def fail(self, kind: str, times: int = 1, **where: object) -> None:
        self.faults.append(Fault(kind, times, **where))  # type: ignore[arg-type]

    def take(self, method: str, path: str, headers: Mapping[str, str]) -> Fault | None:
        span = {name.lower(): value for name, value in headers.items()}.get("range")
        with self.lock:
            self.seen.append(f"{method} {path}" + (f" {span}" if span else ""))
            fault = next((fault for fault in self.faults if fault.meets(method, path, headers)), None)
            if fault is not None:
                fault.left -= 1
            return fault

    def asked(self, method: str, part: str) -> bool:
        """Whether there was a request by this method whose path holds the part."""
        with self.lock:
            return any(request.startswith(method) and part in request for request in self.seen)

    def count(self, start: str) -> int:
        """Requests so far that begin so."""
        with self.lock:
            return sum(request.startswith(start) for request in self.seen)


def handler(proxy: Proxy) -> type[BaseHTTPRequestHandler]:
    """The class that answers one connection."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # else headers and body are two packets, and the second waits for an acknowledgement

        def forward(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            fault = proxy.take(self.command, self.path, dict(self.headers.items()))
            kind = fault.kind if fault else ""
            if kind in REFUSALS:
                return self.refuse(*REFUSALS[kind])
            if kind == "reset":
                return self.cut()
            if kind == "slow":
                time.sleep(fault.seconds if fault else 0)
            upstream = HTTPConnection("127.0.0.1", proxy.upstream, timeout=120)
            upstream.request(self.command, self.path, body, dict(self.headers.items()))
            answer = upstream.getresponse()
            content = answer.read()
            upstream.close()
            if kind == "dropped":
                return self.cut()
            if fault is not None and kind == "late":
                fault.done = True
                time.sleep(fault.seconds)
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in PASSED_ON:
                    self.send_header(name, value)
            length = answer.getheader("content-length") if self.command == "HEAD" else str(len(content))
            self.send_header("content-length", length or "0")
            self.end_headers()
            with suppress(ConnectionError):  # who asked has given up
                self.wfile.write(content[: len(content) // 2] if kind == "truncated" else content)
            if kind == "truncated":
                self.cut()

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = forward

        def refuse(self, status: int, code: str, text: str) -> None:
            content = f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>{text}</Message></Error>'.encode()
            self.send_response(status)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        def cut(self) -> None:
            self.close_connection = True
            with suppress(OSError):
                self.wfile.flush()
                self.connection.shutdown(socket.SHUT_RDWR)

        def log_message(self, format: str, *args: object) -> None:
            return None

    return Handler


@pytest.fixture(scope="session")
def moto(
    reserve_port: Callable[[], int], wait_for: Callable[..., None], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[int]:
    """Port of an S3 server; the tests that need it are skipped where it is not installed."""
    if not SERVER.is_file():
        pytest.skip("the S3 server is not installed (launch/test.sh puts it into .venv-s3)")
    port, said = reserve_port(), tmp_path_factory.mktemp("s3") / "said.txt"
    with said.open("wb") as out:
        process = subprocess.Popen([str(SERVER), "-H", "127.0.0.1", "-p", str(port)], stdout=out, stderr=out)
    try:
        wait_for(lambda: process.poll() is not None or answers(port), "an answer of the S3 server", seconds=500)
        assert process.poll() is None, said.read_text()
        yield port
    finally:
        process.kill()
        process.wait()


def answers(port: int) -> bool:
    """Whether a web server answers there."""
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5).close()
    except OSError:
        return False
    return True


@pytest.fixture(scope="session")
def server(moto: int) -> Iterator[tuple[Proxy, int]]:
    """The proxy before the S3 server, and its port."""
    proxy = Proxy(moto)
    listening = ThreadingHTTPServer(("127.0.0.1", 0), handler(proxy))
    listening.daemon_threads = True
    threading.Thread(target=listening.serve_forever, daemon=True).start()
    yield proxy, listening.server_address[1]
    listening.shutdown()


@pytest.fixture(scope="session")
def environment(server: tuple[Proxy, int]) -> dict[str, str]:
    """Variables under which s3:// means this endpoint; what fails is given up soon: faults here end."""
    return {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server[1]}",
        "AWS_ACCESS_KEY_ID": "tester",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "us-east-1",
        "AMN_STORAGE_PATIENCE_S": "30",
    }


@pytest.fixture
def s3(server: tuple[Proxy, int], environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Proxy:
    """The endpoint, without faults."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    for name in [name for name in os.environ if name.startswith("AMN_CACHE")]:
        monkeypatch.delenv(name)
    server[0].faults.clear()
    server[0].seen.clear()
    return server[0]


@pytest.fixture
def bucket(s3: Proxy) -> str:
    """URL of a new bucket."""
    return make_bucket(s3)


def make_bucket(proxy: Proxy) -> str:
    name = f"b-{uuid.uuid4().hex[:12]}"
    request = urllib.request.Request(f"http://127.0.0.1:{proxy.upstream}/{name}", method="PUT")
    urllib.request.urlopen(request, timeout=60).close()
    return f"s3://{name}"
