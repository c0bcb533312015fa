"""The processes of one Fit: who this one is, and the few collectives a training loop needs."""

from __future__ import annotations

import gc
import importlib
import json
import math
import os
import re
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed

from amn_dist.errors import ConfigError, PeerLost, printable
from amn_dist.ops.devices import has_gpu
from amn_dist.variables import whole_number

TIMEOUT_S = 600.0
"""How long a rank waits for the others unless told otherwise."""

LEAST_HEARTBEAT_S = 60
"""Seconds that NCCL's watching thread may take for one look, at least."""

LOST = re.compile(r"gloo|NCCL|Connection (closed|reset|refused)|Broken pipe|Timed out waiting")
"""In messages of collectives whose other end is gone."""


@dataclass(frozen=True, slots=True)
class World:
    """This process among `size`; with one process every collective is the identity."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def device(self) -> torch.device:
        """This process's accelerator, or the CPU."""
        return torch.device("cuda", self.local_rank) if has_gpu() else torch.device("cpu")

    def sum(self, values: Tensor) -> Tensor:
        """Sum of f64[n] over all processes, on their device; nobody waits for it there."""
        if self.size == 1:
            return values
        on_device = values.to(self.device)
        distributed.all_reduce(on_device)
        return on_device

    def first(self, value: Any) -> Any:
        """The first rank's value, on every rank."""
        if self.size == 1:
            return value
        box = [value]
        distributed.broadcast_object_list(box, src=0, device=self.device)
        return box[0]

    def gather(self, values: Sequence[str]) -> list[str]:
        """The values of all ranks, in the order of ranks."""
        if self.size == 1:
            return list(values)
        by_rank: list[Any] = [None] * self.size
        distributed.all_gather_object(by_rank, list(values))
        return [value for values in by_rank for value in values]

    def wait(self) -> None:
        """Return when every process has come this far."""
        self.sum(torch.zeros(1, dtype=torch.float64)).tolist()


@contextmanager
def membership(*, timeout_s: float = TIMEOUT_S) -> Iterator[World]:
    """Join the processes a launcher describes (join_world) and leave them at the end, however that comes.

    A process group that was there before is left to whoever made it; one made inside, by form_group too, goes.
    """
    ours = not distributed.is_initialized()
    world = join_world(timeout_s=timeout_s)
    try:
        yield world
    except BaseException as error:
        if ours:
            _forget_frames(error)
            with suppress(RuntimeError):  # the first error says more
                _leave(broken=True)
        raise
    if ours:
        _leave(broken=False)


def join_world(*, timeout_s: float = TIMEOUT_S) -> World:
    """Join the processes described by RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT; default: alone.

    A process group that exists (Ray Train makes one) is used. timeout_s: how long any rank waits for another, here and
    later. Raises ConfigError when the description is not whole, PeerLost when the others cannot be met.
    """
    size = whole_number("WORLD_SIZE", 1, least=1)
    world = World(whole_number("RANK", 0), size, whole_number("LOCAL_RANK", 0))
    if max(world.rank, world.local_rank) >= size:
        raise ConfigError(
            f"RANK {world.rank}, LOCAL_RANK {world.local_rank}: expected 0 to {size - 1}, from WORLD_SIZE {size}; "
            "check the launcher"
        )
    if world.device.type == "cuda":
        torch.cuda.set_device(world.device)
    if size > 1 and not distributed.is_initialized():
        missing = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
        if missing:
            raise ConfigError(f"WORLD_SIZE {size}: {', '.join(missing)} not set; start with torchrun or deepspeed")
        whole_number("MASTER_PORT", 0, most=65535)
        _meet(world, timeout_s)
    return world


def _leave(*, broken: bool) -> None:
    """Destroy the process group, and its threads with it. broken: the other ranks may be gone or doing something else.

    Gloo's threads let go of tensors after whoever waited for them went on, and need the interpreter for it: one that is
    late finds it ending, and aborts the process. They are joined when nothing refers to their group any more.
    """
    if not distributed.is_initialized():
        return
    if broken and distributed.get_backend() == "nccl":  # its destruction waits for the other ranks
        distributed.distributed_c10d._abort_process_group()
    else:
        distributed.destroy_process_group()
    gc.collect()  # engines and their groups lie in cycles


def _forget_frames(error: BaseException) -> None:
    """Clear the locals of the calls that an error came through, and of those that caused it: groups are among them."""
    errors: list[BaseException | None] = [error]
    for raised in errors:
        if raised is not None:
            traceback.clear_frames(raised.__traceback__)
            errors += [other for other in (raised.__cause__, raised.__context__) if other not in errors]


def watchdog_settings(timeout_s: float) -> dict[str, str]:
    """What NCCL is told, by variable: a rank whose others are silent for so long ends, whatever its host waits for.

    Its collectives raise nothing in the program that asked for them: a thread beside it ends the process (SIGABRT), and
    a second one does when that thread hangs. Whoever started the process sees it die.
    """
    silent_s = str(max(math.ceil(timeout_s), LEAST_HEARTBEAT_S))
    return {"TORCH_NCCL_ASYNC_ERROR_HANDLING": "3", "TORCH_NCCL_HEARTBEAT_TIMEOUT_SEC": silent_s}


def _make_group(world: World, **where: Any) -> None:
    # It keeps the group that exists when it is imported, as default arguments; optimisers import it in passing.
    importlib.import_module("torch.distributed.nn.functional")
    distributed.init_process_group(_backend(world), rank=world.rank, world_size=world.size, **where)


def _meet(world: World, timeout_s: float) -> None:
    if _backend(world) == "nccl":
        for name, value in watchdog_settings(timeout_s).items():
            os.environ.setdefault(name, value)
    try:
        _make_group(world, timeout=timedelta(seconds=timeout_s))
    except (RuntimeError, ValueError) as error:
        address = printable(f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}")
        raise PeerLost(
            f"rank {world.rank} of {world.size}: could not meet the others at {address} within {timeout_s:g} s "
            f"({printable(error)}); are all started, is the port open, is "
            "GLOO_SOCKET_IFNAME (NCCL_SOCKET_IFNAME) right?"
        ) from error


def check_versions(world: World, versions: Mapping[str, str | None]) -> None:
    """Raise ConfigError on every rank unless all have these versions (by package)."""
    if world.size == 1:
        return
    texts = world.gather([json.dumps(dict(versions), sort_keys=True)])
    first = json.loads(texts[0])
    for rank, text in enumerate(texts):
        other = json.loads(text)
        for name in sorted(first):
            if other.get(name) != first[name]:
                raise ConfigError(
                    f"rank {rank}: {name} {printable(other.get(name))}, rank 0 has {printable(first[name])}; "
                    "install the same versions on every node (launch/install.sh)"
                )


@contextmanager
def naming_lost_peers(world: World, name: str) -> Iterator[None]:
    """Turn what a collective raises when a rank is gone into PeerLost."""
    try:
        yield
    except RuntimeError as error:
        if world.size == 1 or not lost_peer(error):
            raise
        raise PeerLost(
            f"{name}: rank {world.rank} of {world.size} lost the others ({printable(error)}); "
            "the same command goes on from the last checkpoint"
        ) from error


def lost_peer(error: Exception) -> bool:
    """Whether an error says that another rank is gone or silent."""
    return isinstance(error, distributed.DistError) or bool(LOST.search(str(error)))


def form_group(world: World) -> None:
    """Make a process group of one where there is none: no socket, no network. `membership` leaves it."""
    if not distributed.is_initialized():
        assert world.size == 1
        # Gloo looks for an interface even when alone.
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        _make_group(world, store=distributed.HashStore())


def _backend(world: World) -> str:
    return "nccl" if world.device.type == "cuda" else "gloo"
