"""How many training processes a cluster has room for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Seats:
    """Room for a gang. cpus: cores of each process. gpus: each has one."""

    processes: int
    cpus: float
    gpus: bool


def seats(nodes: Sequence[Mapping[str, float]], *, processes: int) -> Seats:
    """Room for at most `processes` on nodes of these resources (CPU, GPU); a process never spans two nodes.

    With GPUs anywhere, every process has one. Without, processes get as many cores each as there are for all of them.
    """
    with_gpus = [node for node in nodes if node.get("GPU", 0) >= 1]
    if with_gpus:
        room = sum(int(node["GPU"]) for node in with_gpus)
        cpus = min(int(node.get("CPU", 0) // int(node["GPU"])) for node in with_gpus)
        return Seats(min(room, processes), max(cpus, 1), True)
    cores = [int(node.get("CPU", 0)) for node in nodes]
    most = max([sum(cores) // processes, 1])
    cpus = next((cpus for cpus in range(most, 0, -1) if _room(cores, cpus) >= processes), 1)
    return Seats(min(_room(cores, cpus), processes), cpus, False)


def shared_seats(cores: int, *, processes: int) -> Seats:
    """Room on one machine without GPUs that has to do for all processes."""
    return Seats(processes, cores // processes or cores / processes, False)


def _room(cores: Sequence[int], cpus: int) -> int:
    return sum(count // cpus for count in cores)
