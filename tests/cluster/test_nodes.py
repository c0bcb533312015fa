"""Real nodes, killed in the middle of a fused stream: what is missing is done elsewhere, the bytes stay the same."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from amn_dist.config import FarmSection
from amn_dist.farms.farm import Report
from amn_dist.farms.local import LocalFarm
from amn_dist.farms.ray.driver import IN_FLIGHT
from amn_dist.farms.ray.farm import RayFarm, start_patiently
from amn_dist.farms.ray.nodes import make_token
from amn_dist.shards.shardset import ShardSet
from data_shards.synthetic import pack_synthetic

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

SCRIPT = Path(__file__).with_name("slow_stream.py")
CORES = 3
"""Of a node: one that is left holds all workers of a farm, two hold those of a second driver as well."""

SECTION = {"pools": "two", "network_workers": 1, "workers": 2, "ahead": 1}


def load_script() -> Any:
    """The stream's module, by the name under which the workers find it too."""
    spec = importlib.util.spec_from_file_location("slow_stream", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = sys.modules["slow_stream"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


slow = load_script()


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> ShardSet:
    folder = tmp_path_factory.mktemp("images")
    pack_synthetic(folder, images=56, seed=3, classes=2, shard_size=8)
    return ShardSet.open(folder)


@pytest.fixture(scope="module")
def expected(images: ShardSet, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What an undisturbed farm of one writes."""
    out = tmp_path_factory.mktemp("expected") / "out"
    list(LocalFarm().run(slow.stream(images, out, nap=0.0), range(7)))
    return written(out)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    from ray.cluster_utils import Cluster

    make_token()  # before its processes start: all must have the same
    os.environ["PYTHONPATH"] = os.pathsep.join([str(SCRIPT.parent), os.environ.get("PYTHONPATH", "")])
    head = {"num_cpus": 0, "include_dashboard": False}
    running = start_patiently(partial(Cluster, initialize_head=True, head_node_args=head))
    for _ in range(2):
        start_patiently(partial(running.add_node, num_cpus=CORES))
    running.wait_for_nodes()
    yield running
    running.shutdown()


@pytest.fixture(scope="module")
def farm(cluster: Any) -> Iterator[RayFarm]:
    running = RayFarm(FarmSection.model_validate(SECTION), address=cluster.address)
    yield running
    running.close()


def written(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


def seen(out: Path, name: str) -> list[tuple[int, str]]:
    """(process, node) of every worker that opened a map, the latest last."""
    found = sorted(out.parent.glob(f"{out.name}.seen/{name}-*"), key=lambda path: path.stat().st_mtime_ns)
    return [(int(path.name.rpartition("-")[2]), path.read_text()) for path in found]


def disturbed(farm: RayFarm, images: ShardSet, out: Path, strike: Callable[[], None]) -> list[Report]:
    """Run the stream; strike once, after its first shard."""
    reports = []
    for report in farm.run(slow.stream(images, out, nap=0.05), range(7)):
        if report.shard is not None and not any(earlier.shard is not None for earlier in reports):
            strike()
        reports.append(report)
    shards = [report.shard for report in reports if report.shard is not None]
    assert sorted(shards) == list(range(7)), "each shard is finished once"
    return reports


@pytest.mark.parametrize("name", ["net", "crf"])
def test_a_killed_worker(
    farm: RayFarm, images: ShardSet, expected: dict[str, bytes], tmp_path: Path, name: str
) -> None:
    out = tmp_path / "out"
    reports = disturbed(farm, images, out, lambda: os.kill(seen(out, name)[-1][0], signal.SIGKILL))
    assert written(out) == expected
    assert any("was killed or crashed" in (report.warning or "") for report in reports)
    bound = (SECTION["ahead"] * SECTION["workers"] + IN_FLIGHT * SECTION["network_workers"]) * slow.CHUNK
    assert all(report.images["net"] - report.images["crf"] <= bound for report in reports)


@pytest.mark.parametrize("name", ["net", "crf"])
def test_a_killed_node(
    cluster: Any, farm: RayFarm, images: ShardSet, expected: dict[str, bytes], tmp_path: Path, name: str
) -> None:
    out = tmp_path / "out"

    def strike() -> None:
        _, victim = seen(out, name)[-1]
        cluster.remove_node(next(n for n in cluster.worker_nodes if n.node_id == victim), allow_graceful=False)

    reports = disturbed(farm, images, out, strike)
    assert written(out) == expected
    assert any(report.warning for report in reports)
    start_patiently(partial(cluster.add_node, num_cpus=CORES))


def test_drivers_killed_one_after_the_other(
    cluster: Any, images: ShardSet, expected: dict[str, bytes], tmp_path: Path, wait_for: Any
) -> None:
    out, case = tmp_path / "out", tmp_path / "case.json"
    case.write_text(
        json.dumps({"section": SECTION, "address": cluster.address, "images": images.url, "out": str(out), "nap": 0.05})
    )
    command, kept = [sys.executable, str(SCRIPT), str(case)], set[Path]()
    for sign in (signal.SIGKILL, signal.SIGINT):
        strike_driver(wait_for, command, out, sign, after=kept)
        assert len(kept) < len(finished(out)) < 7
        kept = finished(out)
    made = {path: path.stat().st_mtime_ns for path in kept}
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert written(out) == expected
    assert {path: path.stat().st_mtime_ns for path in kept} == made


def test_a_node_short_of_memory_is_told(images: ShardSet, tmp_path: Path) -> None:
    case = tmp_path / "case.json"
    section = {"workers": 1, "retries": 0}
    case.write_text(json.dumps({"section": section, "images": images.url, "out": str(tmp_path / "out"), "nap": 0.3}))
    low = {"RAY_memory_usage_threshold": "0.01", "RAY_memory_monitor_refresh_ms": "200"}
    ended = subprocess.run(
        [sys.executable, str(SCRIPT), str(case)], capture_output=True, text=True, timeout=300, env={**os.environ, **low}
    )
    assert ended.returncode == 1, ended.stderr
    assert "memory monitor" in ended.stderr and "farm.workers" in ended.stderr, ended.stderr


def strike_driver(wait_for: Any, command: list[str], out: Path, sign: signal.Signals, *, after: set[Path]) -> None:
    """Start a driver, strike when it has finished a shard; until its workers are gone too."""
    driver = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        wait_for(lambda: bool(finished(out) - after), "a finished shard", driver)
        driver.send_signal(sign)
        said, _ = driver.communicate(timeout=300)
        assert driver.returncode != 0, said
    finally:
        driver.kill()
    workers = [process for name in ("net", "crf") for process, _ in seen(out, name)]
    wait_for(lambda: not any(alive(process) for process in workers), "the end of its workers")


def finished(out: Path) -> set[Path]:
    """Reports of the shards that are finished in both folders."""
    return {path for path in out.glob("crf/*.json") if (out / "net" / path.name).exists()}


def alive(process: int) -> bool:
    """Whether a process runs; one that only waits to be collected does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
