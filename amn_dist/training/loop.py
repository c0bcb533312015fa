"""The one training loop. Started alone, by torchrun, by the deepspeed launcher or inside Ray Train."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from amn_dist.config import EngineSection, FitSection
from amn_dist.errors import ConfigError, StageError
from amn_dist.interfaces import Fit, Stepwise
from amn_dist.models.precision import precision_name
from amn_dist.records import Batch
from amn_dist.storage.atomic import atomic_file
from amn_dist.telemetry import Observe, versions
from amn_dist.training.checkpoints import State, checkpoint_seconds, resume, save_checkpoint
from amn_dist.training.determinism import algorithms
from amn_dist.training.engines.engine import Engine, build_engine, joined
from amn_dist.training.ledger import LOOK_EVERY, Ledger, sum_losses
from amn_dist.training.meter import Meter, Pause, peak_memory_gib
from amn_dist.training.optimiser import rate_factor
from amn_dist.training.stopping import stop_on_sigterm
from amn_dist.training.world import World, check_versions, naming_lost_peers

MODEL = "model.safetensors"
"""Weights a Fit ends with."""
CHECKPOINTS = "checkpoints"
"""Folder of a Fit's checkpoints, in its own."""
STOP = "stop"
"""A file of this name in the Fit's folder asks for what SIGTERM asks for; it reaches gangs on other machines."""

BatchesFrom = Callable[[int], Iterator[Batch]]


@dataclass(frozen=True)
class FitContext:
    """What stays the same over a Fit. steps: optimiser steps in all. pieces: micro-batches a step on every rank."""

    fit: Fit
    folder: Path
    section: EngineSection
    world: World
    seed: int
    steps: int
    pieces: int
    observe: Observe
    saved: Callable[[Path], None]

    def state(self, step: int) -> State:
        """What a checkpoint after `step` steps says of itself."""
        zero = self.section.zero if self.section.name == "deepspeed" else 0
        consumed = step * self.fit.section.batch
        return State(step, consumed, self.section.name, zero, self.world.size, {}, machine=self.machine)

    @property
    def machine(self) -> str:
        """What this process trains on, in words."""
        return f"{self.world.device.type} in {precision_name(self.section.precision)}"

    def save(self, engine: Engine, step: int) -> None:
        """Write a checkpoint; every rank calls it."""
        folder = self.folder / CHECKPOINTS
        save_checkpoint(folder, engine, self.world, self.state(step))
        if self.world.rank == 0:
            self.saved(folder / f"{step:06d}")


def fit(
    fit: Fit,
    batches_from: BatchesFrom,
    *,
    folder: Path,
    engine: EngineSection,
    seed: int,
    samples: int,
    observe: Observe,
    saved: Callable[[Path], None] = lambda checkpoint: None,
) -> Path:
    """Train to the end, from the newest checkpoint in `folder` if there is one; returns folder/model.safetensors.

    batches_from: this rank's batches from a global sample on. samples: size of the training set. observe: gets a
    record every log_every steps, on every rank: step, steps, the parts of the global loss, lr of the first group,
    images_per_s, data_wait (share of time), gradient_norm, memory_gib (peak of this process); or a warning. saved: gets
    the folder of every finished checkpoint, on the first rank.
    Raises StageError for a loss that is not finite (it was not stepped on; the step and the keys are named) and after
    SIGTERM or when a file `stop` appears in `folder` (a checkpoint is saved first; on a device up to LOOK_EVERY steps
    later); PeerLost when another rank is gone.
    """
    with joined(engine) as world, algorithms(deterministic=engine.deterministic):
        pieces = count_pieces(fit.section, world.size)
        steps = count_steps(fit.section, samples)
        context = FitContext(fit, Path(folder), engine, world, seed, steps, pieces, observe, saved)
        with naming_lost_peers(world, fit.name):
            return _train(context, batches_from)


def count_steps(section: FitSection, samples: int) -> int:
    """Optimiser steps of a Fit. Raises ConfigError when an epoch holds no whole batch."""
    if section.batch > samples:
        raise ConfigError(f"batch {section.batch}: the training set has {samples} images; set a smaller batch")
    return section.steps or section.epochs * (samples // section.batch)


def count_pieces(section: FitSection, processes: int) -> int:
    """Micro-batches of a step, the same on every rank. Raises ConfigError when that cannot be."""
    small, large = section.batch // processes, -(-section.batch // processes)
    if small == 0:
        raise ConfigError(f"batch {section.batch}: {processes} processes need one image each; use fewer processes")
    micro = section.micro_batch or large
    if -(-small // micro) != -(-large // micro):
        raise ConfigError(
            f"micro_batch {micro}: shares of {small} and {large} images need different numbers of micro-batches; "
            f"make batch {section.batch} a multiple of the {processes} processes, or set micro_batch to 0"
        )
    return -(-large // micro)


def numbered_seed(*parts: object) -> int:
    """A seed from any values that print."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:7], "little")


def _train(context: FitContext, batches_from: BatchesFrom) -> Path:
    check_versions(context.world, versions())
    running, done = _start(context)
    path = context.folder / MODEL
    try:
        _run(context, running, batches_from, done)
        if context.world.rank == 0:
            _save_model(running.network, path)
    finally:
        running.close()
    context.world.wait()
    return path


def _start(context: FitContext) -> tuple[Engine, int]:
    def build() -> Engine:
        torch.manual_seed(numbered_seed(context.seed, context.fit.name, "network"))
        return build_engine(context.fit, context.section, context.world, pieces=context.pieces)

    def warn(text: str) -> None:
        context.observe({"warning": text})

    return resume(context.folder / CHECKPOINTS, build, context.world, warn, machine=context.machine)


def _run(context: FitContext, engine: Engine, batches_from: BatchesFrom, done: int) -> None:
    if done >= context.steps:
        return
    section = context.fit.section
    with ExitStack() as stack:
        signalled = stack.enter_context(stop_on_sigterm())

        def asked() -> bool:
            return signalled.is_set() or (context.world.rank == 0 and (context.folder / STOP).exists())

        source = batches_from(done * section.batch)
        stack.callback(getattr(source, "close", lambda: None))
        meter, ledger = Meter(section.batch), Ledger(context.fit.name, context.world)
        pause = Pause(checkpoint_seconds(context.section, context.world.device))
        for step in range(done, context.steps):
            _step(context, engine, meter.next(source), step, asked, ledger)
            now = step + 1
            last = now == context.steps
            logs, saves = (last or now % every == 0 for every in (section.log_every, section.checkpoint_every))
            if logs or saves or len(ledger.unread) >= LOOK_EVERY:
                ledger.read()
            if logs:
                _observe(context, engine, meter, ledger, step)
            if ledger.stopping or last or (saves and context.world.first(pause.is_over())):
                context.save(engine, now)
                pause.begin()
            if ledger.stopping and not last:
                raise StageError(f"{context.fit.name}: stopped at step {now}; the same command goes on")


def _step(
    context: FitContext, engine: Engine, batch: Batch, step: int, asked: Callable[[], bool], ledger: Ledger
) -> None:
    """One update; the ledger has its losses, and whether this rank was asked to stop."""
    fit, world = context.fit, context.world
    draws = tuple(numbered_seed(context.seed, fit.name, step, ordinal) for ordinal in batch.ordinals)
    batch = replace(batch.to(world.device), draws=draws)
    pooled = world.sum(fit.normalisers(batch))
    torch.manual_seed(numbered_seed(context.seed, fit.name, step, world.rank))  # of networks that draw without `draws`
    pieces = list(batch.split(fit.section.micro_batch or len(batch)))
    parts = list(engine.accumulate(pieces, pooled))
    losses = sum_losses(parts, [piece.keys for piece in pieces], step=step, stop=asked(), world=world)
    spoiled = ledger.note(losses)
    if not engine.guards:
        ledger.read()
    engine.update(rate_factor(fit.section, step, context.steps), spoiled if engine.guards else None)
    if isinstance(engine.network, Stepwise):
        engine.network.end_step()


def _observe(context: FitContext, engine: Engine, meter: Meter, ledger: Ledger, step: int) -> None:
    """Say how the Fit goes after a step that the ledger was read at."""
    rate = engine.initial_rates[0] * rate_factor(context.fit.section, step, context.steps)
    cost = {"gradient_norm": float(engine.norm), "memory_gib": peak_memory_gib(context.world.device)}
    where = {"step": step + 1, "steps": context.steps}
    context.observe({**where, **ledger.parts, "lr": rate, **meter.read(), **cost})


def _save_model(network: nn.Module, path: Path) -> None:
    """Write parameters and buffers as safetensors; the file appears whole or not at all."""
    # Copies: DeepSpeed's parameters are views of one buffer.
    state = network.state_dict().items()
    tensors = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in state}
    with atomic_file(path) as temporary:
        save_file(tensors, temporary)
