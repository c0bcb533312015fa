"""How many training processes a cluster has room for, and how many cores there are for each of its GPUs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ProcessSlots:
    """Room for a gang. cpus: cores of each process. gpus: each has one."""

    processes: int
    cpus: float
    gpus: bool


def process_slots(nodes: Sequence[Mapping[str, float]], *, processes: int) -> ProcessSlots:
    """Room for at most `processes` on nodes of these resources (CPU, GPU); a process never spans two nodes.

    With GPUs anywhere, every process has one. Without, processes get as many cores each as there are for all of them.
    """
    with_gpus = [node for node in nodes if node.get("GPU", 0) >= 1]
    if with_gpus:
        room = sum(int(node["GPU"]) for node in with_gpus)
        return ProcessSlots(min(room, processes), cores_beside(with_gpus), True)
    cores = [int(node.get("CPU", 0)) for node in nodes]
    most = max([sum(cores) // processes, 1])
    cpus = next((cpus for cpus in range(most, 0, -1) if _slots_of(cores, cpus) >= processes), 1)
    return ProcessSlots(min(_slots_of(cores, cpus), processes), cpus, False)


def cores_beside(nodes: Sequence[Mapping[str, float]], share: float = 1.0) -> int:
    """Cores for each holder of a share of a GPU, on the node that has the fewest of them."""
    with_gpus = [node for node in nodes if node.get("GPU", 0) >= 1]
    cores = [int(node.get("CPU", 0) * share // int(node["GPU"])) for node in with_gpus]
    return max(min(cores, default=1), 1)


def shared_slots(cores: int, *, processes: int) -> ProcessSlots:
    """Room on one machine without GPUs that has to do for all processes."""
    return ProcessSlots(processes, cores // processes or cores / processes, False)


def _slots_of(cores: Sequence[int], cpus: int) -> int:
    return sum(count // cpus for count in cores)
