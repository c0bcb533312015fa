"""What a killed worker, node or driver costs either farm: is the result whole, how many samples are worked on again?

python -m benchmarks.rivals.deaths CASE.json    (as a driver)
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from amn_dist.config import FarmSection
from amn_dist.farms.local import LocalFarm
from amn_dist.farms.ray.farm import connect, start_patiently
from amn_dist.farms.ray.nodes import make_token
from benchmarks.memory import anonymous_mib
from benchmarks.rivals import ray_data
from benchmarks.rivals.farms import CORES, OURS, WORKERS, our_farm, our_records
from benchmarks.rivals.noted_map import finished, noted_task, notes
from data_shards.synthetic import pack_synthetic

ROOT = Path(__file__).resolve().parents[2]
NODE: dict[str, Any] = {"num_cpus": CORES, "object_store_memory": 150_000_000}
PATIENCE_S = 300.0


@dataclass(frozen=True)
class Case:
    """What a driver does. farm: OURS or PEER. address: of a cluster; None: its own."""

    farm: str
    images: str
    out: str
    nap_s: float
    address: str | None = None


def drive(case: Case) -> dict[str, Any]:
    """Make what is missing; seconds, and the most memory of this driver's own beyond what it had at first, MiB."""
    out = Path(case.out)
    task = noted_task(case.images, out, nap_s=case.nap_s)
    connect(FarmSection(workers=CORES), case.address)
    before, most, over = anonymous_mib(os.getpid()), [0.0], threading.Event()

    def watch() -> None:
        while not over.wait(0.05):
            most[0] = max(most[0], anonymous_mib(os.getpid()))

    watching = threading.Thread(target=watch, daemon=True)
    watching.start()
    start = time.perf_counter()
    if case.farm == OURS:
        done = finished(out, task)
        our_records(our_farm(), task, [number for number in range(len(task.sizes)) if number not in done])
    else:
        for _ in ray_data.run(task, range(len(task.sizes)), workers=WORKERS, kept=out / "kept"):
            pass
    over.set()
    watching.join()
    return {"seconds": round(time.perf_counter() - start, 2), "driver_grown_mib": round(most[0] - before, 1)}


def written(out: Path) -> dict[str, bytes]:
    """Tars and reports below a folder."""
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.glob("*/0*")) if path.is_file()}


class Deaths:
    """A cluster of a head without cores and two nodes, on which drivers are struck."""

    def __init__(self, folder: Path, *, quick: bool) -> None:
        from ray.cluster_utils import Cluster

        self.folder, self.nap_s = folder, 0.1 if quick else 0.25
        make_token()  # before its processes start: all must have the same
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        head = {"num_cpus": 0, "include_dashboard": False}
        self.cluster = start_patiently(partial(Cluster, initialize_head=True, head_node_args=head))
        for _ in range(2):
            start_patiently(partial(self.cluster.add_node, **NODE))
        self.cluster.wait_for_nodes()
        pack_synthetic(folder / "set", images=48 if quick else 160, size=(48, 64), classes=2, shard_size=8)
        task = noted_task(str(folder / "set"), folder / "expected", nap_s=0)
        self.shards, self.samples = len(task.sizes), sum(task.sizes)
        list(LocalFarm().run(task, range(self.shards)))
        self.expected = written(folder / "expected")

    def close(self) -> None:
        self.cluster.shutdown()

    def struck(self, farm: str, name: str) -> dict[str, Any]:
        """Run a driver, kill `name` after a third of the shards, start a killed driver again; what came of it."""
        out = self.folder / f"{farm} {name}"
        out.mkdir()
        case = Case(farm, str(self.folder / "set"), str(out), self.nap_s, self.cluster.address)
        driver = started(case)
        done = 0 if name == "nobody" else self._strike(driver, out, name)
        ended = answer(driver)
        if name == "driver":
            ended = answer(started(case))
        again = sum(len(keys) for _, _, keys in notes(out)) - self.samples
        record = {"whole": written(out) == self.expected and ended is not None, "samples_again": again}
        return record | ({} if name == "nobody" else {"shards_then": done}) | (ended or {})

    def _strike(self, driver: subprocess.Popen[str], out: Path, name: str) -> int:
        """Kill; how many shards were there."""
        while driver.poll() is None and len(list((out / "noted").glob("0*.json"))) < max(self.shards // 3, 1):
            time.sleep(0.01)
        worker, node, _ = notes(out)[-1]
        done = len(list((out / "noted").glob("0*.json")))
        if name == "driver":
            driver.kill()
        elif name == "worker":
            os.kill(worker, signal.SIGKILL)
        else:
            lost = next(one for one in self.cluster.worker_nodes if one.node_id == node)
            self.cluster.remove_node(lost, allow_graceful=False)
            start_patiently(partial(self.cluster.add_node, **NODE))
        return done


def started(case: Case) -> subprocess.Popen[str]:
    """A driver as a process of its own."""
    path = Path(case.out) / "case.json"
    path.write_text(json.dumps(asdict(case)))
    command = [sys.executable, "-m", "benchmarks.rivals.deaths", str(path)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def answer(driver: subprocess.Popen[str]) -> dict[str, Any] | None:
    """What a driver said at its good end; None when it failed or did not end."""
    try:
        said, _ = driver.communicate(timeout=PATIENCE_S)
    except subprocess.TimeoutExpired:
        driver.kill()
        driver.communicate()
        return None
    answers = [line for line in said.splitlines() if line.startswith("{")]  # Ray says there what it thinks of a death
    told: dict[str, Any] | None = json.loads(answers[-1]) if driver.returncode == 0 else None
    return told


if __name__ == "__main__":
    print(json.dumps(drive(Case(**json.loads(Path(sys.argv[1]).read_text())))))
