"""What every node of a Ray cluster can do: versions, storage, clocks, disk, and whether they reach each other."""

from __future__ import annotations

import os
import shutil
import socket
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import distributed

from amn_dist.commands.doctor.machine import Check
from amn_dist.config import FarmSection
from amn_dist.errors import ShardError, listed
from amn_dist.storage.atomic import commit
from amn_dist.storage.folders import remove_folder
from amn_dist.storage.paths import AnyPath
from amn_dist.storage.scratch import scratch_root
from amn_dist.telemetry import versions

ANSWER_S = 120.0
"""Starting a worker process and importing torch takes a while on a busy node."""
SKEW_S = 2.0
"""Clocks further apart than this make logs and file times misleading."""
FREE_GIB = 2.0


def examine_cluster(address: str | None, folder: AnyPath) -> list[Check]:
    """Ask every node. folder: where runs are kept, to be seen by all."""
    from amn_dist.farms.ray.farm import connect
    from amn_dist.farms.ray.nodes import Answer, ask_nodes

    if address is None:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    connect(FarmSection(), address)
    probe = folder.resolve() / f".probe-{uuid.uuid4().hex}"
    try:
        commit(probe / "leader", probe.name.encode())
        answers: list[Answer] = ask_nodes(partial(describe, probe), timeout_s=ANSWER_S)
        asked = time.time()
        clocks = ask_nodes(time.time, timeout_s=ANSWER_S)
        replied = time.time()
        seen = {path.name for path in probe.iterdir()}
    finally:
        with suppress(ShardError):
            remove_folder(probe)
    return [
        *(check for answer in answers for check in judge(answer, seen)),
        *(judge_clock(answer, asked, replied) for answer in clocks),
        reach(answers),
    ]


def describe(probe: AnyPath) -> dict[str, Any]:
    """What this node has; leaves a file named after itself in the probe folder when it sees the leader's."""
    mark = f"{socket.gethostname()}-{os.getpid()}"
    try:
        visible = (probe / "leader").read_text() == probe.name
        commit(probe / mark, mark.encode())
    except (OSError, ShardError):
        visible = False
    own = probe.parent if isinstance(probe, Path) else scratch_root()
    folders = [folder for folder in (own, Path("/tmp")) if folder.exists()]
    free = {str(folder): shutil.disk_usage(folder).free / 2**30 for folder in folders}
    return {"versions": versions(), "visible": visible, "mark": mark, "free_gib": free}


def judge(answer: Any, seen: set[str]) -> Iterator[Check]:
    """Checks of one node. seen: names of the files the leader finds in the probe folder."""
    if answer.fault is not None:
        yield Check(f"node {answer.place}", False, answer.fault, "is Ray up there, can it be reached?")
        return
    node, ours = answer.value, versions()
    other = [f"{name} {version}" for name, version in node["versions"].items() if version != ours[name]]
    cores, gpus = (int(answer.resources.get(kind, 0)) for kind in ("CPU", "GPU"))
    yield Check(
        f"node {answer.place}",
        not other,
        ", ".join(other) or f"{cores} cores, {gpus} accelerators, versions equal",
        "the leader has others; run launch/install.sh there" if other else "",
    )
    stored = node["visible"] and node["mark"] in seen
    yield Check(
        f"storage {answer.place}",
        stored,
        "read and written" if stored else "the run's folder is not the leader's",
        "" if stored else "mount the same storage at the same path, or give this node the credentials of the URL",
    )
    for folder, free in node["free_gib"].items():
        enough = free >= FREE_GIB
        advice = "" if enough else f"at least {FREE_GIB:g} GiB"
        yield Check(f"disk {answer.place} {folder}", enough, f"{free:.1f} GiB free", advice)


def judge_clock(answer: Any, asked: float, replied: float) -> Check:
    """A clock is right when it shows a time between question and reply."""
    if answer.fault is not None:
        return Check(f"clock {answer.place}", False, answer.fault, "see node")
    skew = max(asked - answer.value, answer.value - replied, 0.0)
    right = skew <= SKEW_S
    return Check(f"clock {answer.place}", right, f"{skew:.1f} s off at least", "" if right else "run ntp", needed=False)


def reach(answers: Sequence[Any]) -> Check:
    """Whether a process on every node can sum a number with all others."""
    from amn_dist.farms.ray.nodes import ask_nodes

    size = len(answers)
    host = answers[0].place if answers else ""
    with socket.socket() as free:
        free.bind(("", 0))
        port = free.getsockname()[1]
    sums = ask_nodes(partial(add_up, size, host, port), timeout_s=ANSWER_S, numbered=True)
    bad = [f"{answer.place}: {answer.fault or answer.value}" for answer in sums if answer.value != size]
    return Check(
        "collective",
        not bad,
        listed(bad, 200) or f"{size} nodes sum up",
        "set GLOO_SOCKET_IFNAME on every node, open the ports between them" if bad else "",
    )


def add_up(size: int, host: str, port: int, rank: int) -> float:
    """Sum of one from each of `size` processes that meet at host:port."""
    store = distributed.TCPStore(host, port, size, is_master=rank == 0, timeout=timedelta(seconds=60))
    distributed.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=timedelta(seconds=60))
    try:
        total = torch.ones(1)
        distributed.all_reduce(total)
        return float(total)
    finally:
        distributed.destroy_process_group()
