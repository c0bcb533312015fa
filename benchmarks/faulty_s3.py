"""An S3 endpoint that can misbehave: a proxy before moto's server, which lies in an environment of its own.

python -m benchmarks.faulty_s3 ADDRESS PORT SHARE SEED TOLD BUCKET    (a share of requests fails; TOLD counts them)
"""

from __future__ import annotations

import json
import random
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

SERVER = Path(__file__).resolve().parents[1] / ".venv-s3" / "bin" / "moto_server"
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


class Lottery(Proxy):
    """A proxy whose faults are drawn: a share of requests meets one. `told` is a file that always has the counts."""

    KINDS = ("busy", "throttled", "reset", "dropped", "truncated", "slow")
    SLOW_S = 3.0

    def __init__(self, upstream: int, share: float, seed: int, told: Path) -> None:
        super().__init__(upstream)
        self.share, self.random, self.told = share, random.Random(seed), told
        self.requests, self.met = 0, Counter[str]()

    def take(self, method: str, path: str, headers: Mapping[str, str]) -> Fault | None:
        with self.lock:
            self.requests += 1
            kind = self.random.choice(self.KINDS) if self.random.random() < self.share else ""
            if kind:
                self.met[kind] += 1
            if kind or self.requests % 100 == 0:
                self.told.write_text(json.dumps({"requests": self.requests, "faults": dict(self.met)}))
        return Fault(kind, 0, seconds=self.SLOW_S) if kind else None


def answers(port: int) -> bool:
    """Whether a web server answers there."""
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5).close()
    except OSError:
        return False
    return True


def put_bucket(port: int, name: str) -> None:
    """Make a bucket of the server itself."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}/{name}", method="PUT")
    urllib.request.urlopen(request, timeout=60).close()


def serve(address: str, port: int, share: float, seed: int, told: Path, *, bucket: str) -> None:
    """Start a server on the loopback, and stand before it at an address until killed. Says `ready` when it answers."""
    behind = port + 1
    with subprocess.Popen([SERVER, "-H", "127.0.0.1", "-p", str(behind)], stderr=subprocess.DEVNULL,
                          stdout=subprocess.DEVNULL):  # fmt: skip
        while not answers(behind):
            time.sleep(0.1)
        put_bucket(behind, bucket)
        listening = ThreadingHTTPServer((address, port), handler(Lottery(behind, share, seed, told)))
        listening.daemon_threads = True
        print("ready", flush=True)
        listening.serve_forever()


if __name__ == "__main__":
    where, number, portion, start, counts, name = sys.argv[1:]
    serve(where, int(number), float(portion), int(start), Path(counts), bucket=name)
