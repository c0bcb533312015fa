"""The nodes of a Ray cluster, one by one."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray._raylet import Config  # type: ignore[attr-defined]
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from amn_dist.farms.ray.faults import last_line


@dataclass(frozen=True, slots=True)
class Answer:
    """What a node said. place: its address. resources: CPU, GPU and the like. fault: why there is no value."""

    place: str
    resources: Mapping[str, float]
    value: Any = None
    fault: str | None = None


def ask_nodes(question: Callable[..., Any], *, timeout_s: float, numbered: bool = False) -> list[Answer]:
    """Call a function once on every node that counts as alive; silent nodes have a fault after timeout_s.

    numbered: it takes a number, 0 for the first node. The order of nodes stays the same from call to call.
    """
    nodes = sorted((node for node in ray.nodes() if node["Alive"]), key=lambda node: node["NodeID"])

    @ray.remote(num_cpus=0, max_retries=0)
    def ask(*number: int) -> Any:
        return question(*number)

    calls = []
    for number, node in enumerate(nodes):
        there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        calls.append(ask.options(scheduling_strategy=there).remote(*([number] if numbered else [])))
    ready, _ = ray.wait(calls, num_returns=len(calls), timeout=timeout_s) if calls else ([], [])
    return [_answer(node, call, call in ready, timeout_s) for node, call in zip(nodes, calls, strict=True)]


def bring_token() -> None:
    """Show clusters this user's token if there is one: Ray sends it only when told to."""
    named = any(name in os.environ for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"))
    if "RAY_AUTH_MODE" not in os.environ and (named or (Path.home() / ".ray" / "auth_token").is_file()):
        os.environ["RAY_AUTH_MODE"] = "token"
        Config.initialize("")  # Ray has read the environment already


def make_token() -> None:
    """Let only this process and its workers speak to the cluster it starts, which listens on every interface."""
    if "RAY_AUTH_MODE" not in os.environ:
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
        Config.initialize("")


def _answer(node: Mapping[str, Any], call: Any, ready: bool, timeout_s: float) -> Answer:
    place, resources = node["NodeManagerAddress"], node["Resources"]
    if not ready:
        ray.cancel(call, force=True)
        return Answer(place, resources, fault=f"no answer within {timeout_s:g} s")
    try:
        return Answer(place, resources, ray.get(call))
    except RayError as error:
        return Answer(place, resources, fault=last_line(error))
