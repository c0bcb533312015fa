"""What all providers of object storage have in common: S3, Google and Azure, each against a server on loopback."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from amn_dist.errors import ShardError, StageError
from amn_dist.shards.shardset import ShardSet
from amn_dist.storage import lease
from amn_dist.storage.folders import copy_files, files_below, remove_folder
from amn_dist.storage.lease import FREE, LEASE, holding
from amn_dist.storage.paths import RemotePath
from amn_dist.storage.providers import AZURE, GCS, PROVIDERS
from benchmarks.faulty_s3 import Proxy, handler
from data_shards.synthetic import pack_synthetic
from data_shards.verify import verify
from tests.storage.clouds import AzureHandler, Cloud, CloudHandler, GoogleHandler, serving

HANDLERS: dict[str, type[CloudHandler]] = {"gs": GoogleHandler, "az": AzureHandler}
KEY = "bm8gc2VjcmV0"
"""Of no account."""


@dataclass
class Endpoint:
    """A server of a provider, an empty folder on it, and a folder of a bucket that it does not have."""

    proxy: Proxy
    folder: RemotePath
    elsewhere: RemotePath
    credentials: str


def variables(protocol: str, port: int) -> dict[str, str]:
    """Variables under which a protocol means a server of ours."""
    if protocol == "gs":
        return {"GOOGLE_BASE_URL": f"http://127.0.0.1:{port}", "GOOGLE_BEARER_TOKEN": "a-token"}
    endpoint = {"AZURE_STORAGE_ENDPOINT": f"http://127.0.0.1:{port}/account"}
    return {**endpoint, "AZURE_STORAGE_ACCOUNT_NAME": "account", "AZURE_STORAGE_ACCOUNT_KEY": KEY}


@pytest.fixture(params=["s3", "gs", "az"])
def endpoint(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    if request.param == "s3":
        bucket = RemotePath(request.getfixturevalue("bucket"))
        yield Endpoint(request.getfixturevalue("s3"), bucket / "a", RemotePath("s3://no-such-bucket/a"), "AWS_")
        return
    bare(monkeypatch)
    name = f"b-{uuid.uuid4().hex[:12]}"
    answering = type("Answering", (HANDLERS[request.param],), {"cloud": Cloud({name: {}})})
    with serving(answering) as behind:
        proxy = Proxy(behind)
        with serving(handler(proxy)) as port:
            for variable, value in variables(request.param, port).items():
                monkeypatch.setenv(variable, value)
            monkeypatch.setenv("AMN_STORAGE_PATIENCE_S", "30")
            folder, elsewhere = (RemotePath(f"{request.param}://{bucket}/a") for bucket in (name, "no-such-bucket"))
            yield Endpoint(proxy, folder, elsewhere, "GOOGLE_" if request.param == "gs" else "AZURE_")


def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take away what this machine says of Google and Azure."""
    for variable in (*GCS.settings, *GCS.endpoints, *AZURE.settings, *AZURE.endpoints):
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture
def folder(endpoint: Endpoint) -> RemotePath:
    return endpoint.folder


def test_files_and_folders(folder: RemotePath) -> None:
    contents = {
        f"{name}": name.encode() * 3 for name in ("x", "y z", "b/1", "b/c/2", "ü", "a+b%20", "x#1", "x?v=2", *"defghij")
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    assert files_below(folder) == {name: len(content) for name, content in sorted(contents.items())}
    files, folders = folder.children()
    assert folders == ["b"] and files.keys() == {name for name in contents if "/" not in name}
    assert {name: (folder / name).read_bytes() for name in contents} == contents
    assert (folder / "x").is_file() and not (folder / "x").is_dir() and (folder / "b").is_dir()
    assert not (folder / "b").is_file() and not (folder / "nothing").exists()
    with pytest.raises(FileNotFoundError, match="nothing"):
        (folder / "nothing").read_bytes()
    remove_folder(folder, last=["x"])
    assert not folder.is_dir()


def test_ranges_are_the_bytes_that_were_asked_for(folder: RemotePath) -> None:
    path = folder / "x"
    path.write_bytes(bytes(range(200)))
    assert path.size() == 200 and path.read_range(20, 7) == bytes(range(20, 27)) and path.read_range(3, 0) == b""
    assert b"".join(path.pieces(200)) == bytes(range(200))
    with pytest.raises(ShardError, match="found 10 bytes, expected 20"):
        path.read_range(190, 20)


def test_a_file_is_removed_once_or_was_not_there(folder: RemotePath) -> None:
    (folder / "x").write_bytes(b"x")
    for _ in range(2):
        (folder / "x").unlink()
        assert not (folder / "x").is_file()


def test_copies_stay_inside_the_storage(endpoint: Endpoint, folder: RemotePath) -> None:
    for name in ("x", "y"):
        (folder / name).write_bytes(name.encode() * 1000)
    endpoint.proxy.seen.clear()
    copy_files(folder, folder / "copy", ["x", "y"])
    assert not endpoint.proxy.count("GET") and endpoint.proxy.count("PUT") == 2
    assert {name: (folder / "copy" / name).read_bytes() for name in "xy"} == {"x": b"x" * 1000, "y": b"y" * 1000}


def test_of_writers_that_saw_one_version_one_wins(folder: RemotePath) -> None:
    path = folder / "x"
    assert path.tagged() is None and path.swap(b"0", "1") is None and not path.is_file()
    first = path.swap(b"first", None)
    assert first is not None and path.tagged() == (b"first", first) and path.swap(b"other", None) is None
    second = path.swap(b"second", first)
    assert second is not None and path.tagged() == (b"second", second) != (b"second", first)
    assert path.swap(b"late", first) is None and path.read_bytes() == b"second"
    for tag in (None, "present"):
        race = folder / f"race-{tag}"
        seen = race.swap(b"start", None) if tag else None
        with ThreadPoolExecutor(8) as pool:
            tags = list(pool.map(lambda n, race=race, seen=seen: race.swap(b"%d" % n, seen), range(8)))  # type: ignore[misc]
        assert sum(won is not None for won in tags) == 1
        assert race.read_bytes() == b"%d" % next(n for n, won in enumerate(tags) if won is not None)


def test_a_conditional_write_that_was_not_answered_is_known_as_its_own(endpoint: Endpoint, folder: RemotePath) -> None:
    endpoint.proxy.fail("dropped", 1, method="PUT")
    tag = (folder / "x").swap(b"mine", None)
    assert tag is not None and (folder / "x").tagged() == (b"mine", tag)
    endpoint.proxy.fail("dropped", 1, method="PUT")
    assert (folder / "x").swap(b"mine too", tag) not in (None, tag)


def test_one_driver_at_a_time(folder: RemotePath, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "REFRESH_S", 0.1)
    said: list[str] = []
    with holding(folder, said.append):
        with pytest.raises(StageError, match="is working on this run"):
            holding(folder, said.append).__enter__()
        assert len(said) == 1
    assert (folder / LEASE).read_bytes() == FREE
    with holding(folder, said.append):
        assert (folder / LEASE).read_bytes() != FREE


@pytest.mark.parametrize("kind", ["busy", "throttled", "reset", "truncated", "dropped"])
def test_what_passes_is_waited_for(endpoint: Endpoint, folder: RemotePath, kind: str) -> None:
    for method in ("PUT", "GET") if kind != "truncated" else ("GET",):
        endpoint.proxy.fail(kind, 2, method=method, part="0000")
    pack_synthetic(folder, images=6, size=(32, 48), shard_size=3)
    assert len(ShardSet.open(str(folder)).read(4, "jpg")) > 100
    assert not any(fault.left for fault in endpoint.proxy.faults)


def test_a_refusal_names_the_provider_s_variables(endpoint: Endpoint) -> None:
    endpoint.proxy.fail("denied", 1)
    with pytest.raises(ShardError, match=r"x: cannot be read \(403 AccessDenied\); check the credentials"):
        (endpoint.folder / "x").read_bytes()
    for request in (endpoint.elsewhere.children, (endpoint.elsewhere / "x").read_bytes):
        with pytest.raises(
            ShardError, match=rf"404 \w+\); there is no such \w+; check its name and {endpoint.credentials}"
        ):
            request()
    with pytest.raises(ShardError, match=rf"cannot be written \(404 \w+\).*{endpoint.credentials}"):
        endpoint.elsewhere.write_bytes(b"x")
    with pytest.raises(ShardError, match="there is no such"):
        endpoint.elsewhere.swap(b"x", None)
    with pytest.raises(ShardError, match=r"names no (bucket|container); expected \w+://"):
        RemotePath(f"{endpoint.folder.url.partition(':')[0]}:///x").read_bytes()


def test_a_set_is_the_same_everywhere(folder: RemotePath, tmp_path: Path) -> None:
    scenes = {"images": 12, "size": (32, 48), "shard_size": 4}
    index = pack_synthetic(folder, **scenes)  # type: ignore[arg-type]
    assert index == pack_synthetic(tmp_path / "set", **scenes)  # type: ignore[arg-type]
    assert verify(folder).samples == 12
    here, there = ShardSet.open(tmp_path / "set"), ShardSet.open(str(folder))
    assert [there.read(n, "jpg") for n in range(12)] == [here.read(n, "jpg") for n in range(12)]


def test_credentials_that_are_missing_or_unknown_are_told(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    url, protocol = endpoint.folder.url, endpoint.folder.url.partition(":")[0]
    if protocol == "s3":
        pytest.skip("the server of S3 takes any key")
    monkeypatch.setenv("GOOGLE_BEARER_TOKEN", "another")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "another")
    with pytest.raises(ShardError, match=r"cannot be read \(40[13] \w+\); check the credentials") as caught:
        RemotePath(url).read_bytes()
    assert protocol != "gs" or "GOOGLE_APPLICATION_CREDENTIALS" in str(caught.value)
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_NAME")
    monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT_KEY", "nothing of the kind")
    with pytest.raises(
        ShardError, match=rf"{url}: its storage cannot be used \(.*\); set {endpoint.credentials}"
    ) as caught:
        RemotePath(url).read_bytes()
    assert "\n" not in str(caught.value) and "Debug source" not in str(caught.value)


def test_every_protocol_of_azure_means_the_same(endpoint: Endpoint) -> None:
    protocol, _, rest = endpoint.folder.url.partition("://")
    (endpoint.folder / "x").write_bytes(b"here")
    others = [other for other, provider in PROVIDERS.items() if protocol in provider.protocols]
    assert all(RemotePath(f"{other}://{rest}/x").read_bytes() == b"here" for other in others)
    if protocol == "az":
        container, _, key = rest.partition("/")
        account = f"abfss://{container}@account.dfs.core.windows.net/{key}"
        assert RemotePath(f"{account}/x").read_bytes() == b"here" and RemotePath(account).children()[0] == {"x": 4}


def test_a_client_is_shared_by_threads(folder: RemotePath) -> None:
    threads = [threading.Thread(target=(folder / str(n)).write_bytes, args=(b"%d" % n,)) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert files_below(folder) == {str(n): len(str(n)) for n in range(16)}
