"""Training processes inside the run's Ray cluster, started by Ray Train."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import ray
from ray.exceptions import RayError
from ray.train.torch import TorchConfig
from ray.train.v2.api.config import FailureConfig, RunConfig, ScalingConfig
from ray.train.v2.api.exceptions import TrainingFailedError
from ray.train.v2.torch.torch_trainer import TorchTrainer

from amn_dist.config import EngineSection, FarmSection
from amn_dist.errors import PeerLost, StageError
from amn_dist.farms.capacity import ProcessSlots, process_slots, shared_slots
from amn_dist.farms.ray.farm import connect
from amn_dist.farms.ray.faults import last_line
from amn_dist.farms.ray.nodes import ask_nodes

ANSWER_S = 60.0
"""A node that takes longer to start a process that does nothing is not counted on."""


def train_in_ray(
    work: Callable[[], None], engine: EngineSection, *, farm: FarmSection, address: str | None, folder: Path
) -> None:
    """Run `work` in every process of a gang; Ray Train tells each its rank, and joins them.

    folder: on storage that all nodes see. Raises PeerLost when the gang breaks, whatever broke it.
    """
    if not ray.is_initialized():
        if address is None:
            os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        handler = signal.getsignal(signal.SIGTERM)
        connect(farm, address)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)  # Ray puts its own there, which ends the driver
    slots = _wait_for_slots(engine, alone=address is None)
    storage = folder / ".ray"
    trainer = TorchTrainer(
        work,
        torch_config=TorchConfig(timeout_s=int(engine.timeout_s)),
        scaling_config=ScalingConfig(
            num_workers=slots.processes,
            use_gpu=slots.gpus,
            resources_per_worker={"CPU": slots.cpus, **({"GPU": 1} if slots.gpus else {})},
            placement_strategy="SPREAD",
        ),
        # The pipeline starts the gang again: it knows which errors would only come back.
        run_config=RunConfig(
            name=f"gang-{os.getpid()}-{time.time_ns()}",
            storage_path=str(storage.resolve()),
            failure_config=FailureConfig(max_failures=0, controller_failure_limit=0),
        ),
    )
    try:
        trainer.fit()
    except (TrainingFailedError, RayError) as error:
        raise PeerLost(f"a gang of {slots.processes} broke ({last_line(error)})") from error
    finally:
        shutil.rmtree(storage, ignore_errors=True)


def leave_ray() -> None:
    """Leave the cluster; one of our own ends."""
    ray.shutdown()


def _wait_for_slots(engine: EngineSection, *, alone: bool) -> ProcessSlots:
    """Wait for room for all processes, then take what there is. Raises StageError when it is too little."""
    until = time.monotonic() + engine.rejoin_s
    while True:
        nodes = [answer.resources for answer in ask_nodes(_hello, timeout_s=ANSWER_S) if answer.fault is None]
        slots = process_slots(nodes, processes=engine.processes)
        if alone and not slots.gpus and slots.processes < engine.processes:
            return shared_slots(int(nodes[0]["CPU"]), processes=engine.processes)
        if slots.processes == engine.processes:
            return slots
        if time.monotonic() > until:
            break
        time.sleep(1)
    if slots.processes < engine.min_processes:
        raise StageError(
            f"the Ray cluster has room for {slots.processes} training processes on {len(nodes)} nodes, expected at "
            f"least {engine.min_processes}; add nodes or lower engine.min_processes"
        )
    return slots


def _hello() -> None:
    return None
