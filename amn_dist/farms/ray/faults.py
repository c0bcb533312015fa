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

DEATHS = (RayActorError, OutOfMemoryError, NodeDiedError, WorkerCrashedError)
"""The worker is gone, its work is not to blame: another may try."""

LESS = "lower farm.workers, farm.chunk or farm.ahead"


def cause_of_death(error: RayError) -> str:
    """Why a worker is gone: out of memory, node lost, or killed by somebody."""
    said = " ".join(str(error).split())
    if isinstance(error, OutOfMemoryError):
        return f"was killed by the memory monitor, its node ran out of memory; {LESS}"
    if isinstance(error, ActorDiedError) and error.actor_init_failed:
        return f"did not start: {said[-300:]}"
    if isinstance(error, NodeDiedError) or "node has died" in said:
        return "was lost with its node"
    if isinstance(error, WorkerCrashedError) or "worker process has died" in said:
        return f"was killed or crashed; if the system's OOM killer did it (dmesg says so), {LESS}"
    return f"died: {said[:300]}"


def traceback_of(error: RayError) -> str:
    """The last lines of an error inside a worker, in one."""
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    last = lines[-1] if lines else type(error).__name__
    advice = f"; {LESS}" if isinstance(error, RayTaskError) and isinstance(error.cause, MemoryError) else ""
    return f"{last}{advice} (first traceback: {' | '.join(lines[-7:-1])})"
