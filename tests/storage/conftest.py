"""An S3 endpoint on loopback: moto's server behind a proxy that can misbehave (benchmarks/faulty_s3.py)."""

from __future__ import annotations

import os
import subprocess
import threading
import uuid
from collections.abc import Callable, Iterator
from http.server import ThreadingHTTPServer

import pytest

from benchmarks.faulty_s3 import SERVER, Proxy, answers, handler, put_bucket


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
    put_bucket(proxy.upstream, name)
    return f"s3://{name}"
