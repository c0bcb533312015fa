"""A set packed by two real nodes, one of which dies: the bytes are those that one process packs."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from amn_dist.farms.ray.farm import start_patiently
from amn_dist.farms.ray.nodes import make_token
from data_shards.synthetic import pack_synthetic
from data_shards.task import packing_farm

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

SCENES = {"images": 240, "seed": 5, "shard_size": 6, "size": (160, 240)}


@pytest.fixture
def cluster() -> Iterator[Any]:
    from ray.cluster_utils import Cluster

    make_token()  # before its processes start: all must have the same
    head = {"num_cpus": 1, "include_dashboard": False}
    running = start_patiently(partial(Cluster, initialize_head=True, head_node_args=head))
    running.lost = start_patiently(partial(running.add_node, num_cpus=1))
    running.wait_for_nodes()
    yield running
    running.shutdown()


def test_a_node_that_dies_leaves_no_trace(cluster: Any, tmp_path: Path) -> None:
    out, over, struck = tmp_path / "out", threading.Event(), list[int]()

    def strike() -> None:
        """Kill a node after the third shard."""
        while (done := len(list(out.glob("0*.json")))) < 3:
            if over.wait(0.02):
                return
        struck.append(done)
        cluster.remove_node(cluster.lost, allow_graceful=False)

    killer = threading.Thread(target=strike, daemon=True)
    with packing_farm(2, cluster.address) as farm:
        killer.start()
        index = pack_synthetic(out, **SCENES, farm=farm)
        over.set()
    killer.join(120)
    assert not killer.is_alive() and struck and struck[0] < 40, struck
    assert pack_synthetic(tmp_path / "here", **SCENES) == index
    for path in (tmp_path / "here").iterdir():
        assert (out / path.name).read_bytes() == path.read_bytes(), path.name
    assert {path.name for path in out.iterdir()} == {path.name for path in (tmp_path / "here").iterdir()}
