"""Why a call has no result, in one line that says what to do."""

from __future__ import annotations

from ray.exceptions import (
    ActorDiedError,
    NodeDiedError,
    OutOfMemoryError,
    RayActorError,
    RayError,
    RayTaskError,
    WorkerCrashedError,
)

from amn_dist.errors import MESSAGE, printable

DEATHS = (RayActorError, OutOfMemoryError, NodeDiedError, WorkerCrashedError)
"""The worker is gone, its work is not to blame: another may try."""

LESS = "lower farm.workers, farm.chunk or farm.ahead"


def cause_of_death(error: RayError) -> str:
    """Why a worker is gone: out of memory, node lost, or killed by somebody."""
    said = printable(error, 100 * MESSAGE)
    if isinstance(error, OutOfMemoryError):
        return f"was killed by the memory monitor, its node ran out of memory; {LESS}"
    if isinstance(error, ActorDiedError) and error.actor_init_failed:
        return f"did not start: {last_line(error)}"
    if isinstance(error, NodeDiedError) or "node has died" in said:
        return "was lost with its node"
    if isinstance(error, WorkerCrashedError) or "worker process has died" in said:
        return f"was killed or crashed; if the system's OOM killer did it (dmesg says so), {LESS}"
    return f"died: {printable(said, 300)}"


def traceback_of(error: RayError) -> str:
    """The last lines of an error inside a worker, in one."""
    advice = f"; {LESS}" if isinstance(error, RayTaskError) and isinstance(error.cause, MemoryError) else ""
    before = printable(" | ".join(_lines(error)[-7:-1]), 1000)
    return f"{last_line(error)}{advice} (first traceback: {before})"


def last_line(error: Exception) -> str:
    """Where an error that carries a traceback says what it is."""
    lines = _lines(error)
    return printable(lines[-1] if lines else error, 300)


def _lines(error: Exception) -> list[str]:
    return [line.strip() for line in str(error).splitlines() if line.strip()]
