"""Two processes that learn: DeepSpeed and our plain engine against DistributedDataParallel and FSDP2.

The classifier's Fit on two ranks, gloo, float32. Losses of every step, summed over the ranks, must be those of our
plain engine. Steps are timed in turns; memory is the growth of a rank that has one engine alone. On three ranks, where
the order of a sum can be seen, a run that stops half way and goes on in new engines is compared with one that does not.

    python -m benchmarks.rivals.training OUT NETWORK CROP IMAGES ROUNDS ENGINE...    (as one rank, under torchrun)
    python -m benchmarks.rivals.training OUT NETWORK CROP IMAGES resumed ENGINE...
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from amn_dist.config import EngineSection, load_config
from amn_dist.interfaces import Fit
from amn_dist.records import Batch
from amn_dist.stages.classify import ClassifyFit
from amn_dist.training.engines.engine import build_engine, joined
from amn_dist.training.world import World
from benchmarks.harness import race, rates
from benchmarks.inputs import training_batch

CONFIG = Path(__file__).resolve().parents[2] / "configs" / "voc12_amn.yaml"
BACKBONES = {
    "small": ("name=small", "stride=8", "weights=null", "frozen_taps=0"),
    "vgg16": ("name=vgg16", "stride=16", "weights=null", "frozen_taps=0"),
}
OURS: dict[str, dict[str, Any]] = {
    "amn-dist torch": {"name": "torch"},
    "DeepSpeed": {"zero": 0},
    "DeepSpeed ZeRO-1": {"zero": 1},
    "DeepSpeed ZeRO-2": {"zero": 2},
}
"""Engines of the package by name, with their settings; the first is what losses are compared with."""
TORCHS = ("DDP", "FSDP2")
ENGINES = (*OURS, *TORCHS)
RANKS, CLASSES = 2, 21
RESUMING_RANKS, RESUMING_CROP = 3, 64
"""Processes of a run that stops and goes on, and pixels of its crops: a sum of two terms has one order."""
STEPS, DIFFERENT = 8, 4
"""Steps whose losses are compared, and batches they go over, again and again."""
TOLERANCE = 1e-4
"""Relative, of the loss of any step: gradients are summed in other orders, and eight steps enlarge it."""


def fit_of(network: str, crop: int) -> Fit:
    """The classifier with random weights."""
    backbone = [f"classify.backbone.{setting}" for setting in BACKBONES[network]]
    return ClassifyFit(load_config(CONFIG, (*backbone, f"classify.crop={crop}")), CLASSES)


def built(name: str, fit: Fit, world: World) -> Any:
    """An engine around a network that is the same on every rank and for every engine."""
    torch.manual_seed(0)
    if name in OURS:
        section = EngineSection.model_validate({"precision": "fp32", **OURS[name]})
        return build_engine(fit, section, world, pieces=1)
    from benchmarks.rivals.parallel import DdpEngine, FsdpEngine

    return {"DDP": DdpEngine, "FSDP2": FsdpEngine}[name](fit, world)


def shares(fit: Fit, images: int, world: World) -> list[tuple[Batch, torch.Tensor]]:
    """This rank's part of the batch of every step, and what its losses divide by."""
    wholes = [training_batch(fit, images, CLASSES, seed=step % DIFFERENT) for step in range(STEPS)]
    parts = [list(whole.split(images // world.size))[world.rank] for whole in wholes]
    return [(part, world.sum(fit.normalisers(part))) for part in parts]


def stepped(engine: Any, part: Batch, pooled: torch.Tensor, world: World) -> float:
    """Loss of the global batch, after a step on it."""
    (total,) = [parts["total"] for parts in engine.accumulate([part], pooled)]
    engine.update(1.0)
    return float(world.sum(total.double()[None]))


def peak_mib() -> float:
    """Most memory this process has held since `forget_peak`."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


def forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def member(out: Path, network: str, crop: int, images: int, rounds: int, names: Sequence[str]) -> None:
    """As one rank: losses of every engine, what it holds where it is alone, and seconds a step where there are more."""
    torch.set_num_threads(1)
    with joined(EngineSection(name="deepspeed")) as world:
        fit = fit_of(network, crop)
        batches = shares(fit, images, world)
        forget_peak()
        before = peak_mib()
        engines = {name: built(name, fit, world) for name in names}
        losses = {name: [stepped(engine, *batch, world) for batch in batches] for name, engine in engines.items()}
        record: dict[str, Any] = {"losses": losses, "grown_mib": round(peak_mib() - before, 1)}
        if len(names) > 1:
            calls = {name: partial(stepped, engine, *batches[0], world) for name, engine in engines.items()}
            record["steps"] = rates(race(calls, rounds=rounds), images)
        for engine in engines.values():
            engine.close()
        if world.rank == 0:
            out.write_text(json.dumps(record))


Weights = dict[str, torch.Tensor]


def resuming_member(out: Path, network: str, crop: int, images: int, names: Sequence[str]) -> None:
    """As one rank: whether a run that stops half way ends with the weights of one that does not, by engine."""
    torch.set_num_threads(1)
    with joined(EngineSection(name="deepspeed")) as world:
        fit = fit_of(network, crop)
        batches = shares(fit, images, world)
        equal = {}
        for name in names:
            undisturbed = trained(built(name, fit, world), batches, world)
            resumed = trained(reopened(name, fit, batches[: STEPS // 2], world, out), batches[STEPS // 2 :], world)
            equal[name] = all(torch.equal(tensor, resumed[key]) for key, tensor in undisturbed.items())
        everywhere = world.sum(torch.tensor(list(equal.values()), dtype=torch.float64)) == world.size
        if world.rank == 0:
            out.write_text(json.dumps(dict(zip(equal, everywhere.tolist(), strict=True))))


def reopened(name: str, fit: Fit, batches: Sequence[tuple[Batch, torch.Tensor]], world: World, out: Path) -> Any:
    """A new engine that has taken over what another one saved after these batches."""
    folder = out.with_suffix(f".{ENGINES.index(name)}")
    folder.mkdir(exist_ok=True)
    engine = built(name, fit, world)
    for batch in batches:
        stepped(engine, *batch, world)
    engine.save(folder)
    engine.close()
    world.wait()
    successor = built(name, fit, world)
    successor.load(folder)
    return successor


def trained(engine: Any, batches: Sequence[tuple[Batch, torch.Tensor]], world: World) -> Weights:
    """Weights after these batches, this rank's share of them; the engine is closed."""
    for batch in batches:
        stepped(engine, *batch, world)
    state = engine.network.state_dict()
    own = {name: getattr(tensor, "_local_tensor", tensor).detach().clone() for name, tensor in state.items()}
    engine.close()
    return own


def ganged(network: str, crop: int, images: int, rounds: int | str, names: Sequence[str], ranks: int = RANKS) -> Any:
    """What the ranks found, one core each where there are as many."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "figures.json"
        launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}", "-m", "--"]
        words = [str(out), network, str(crop), str(images), str(rounds), *names]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
        command = [sys.executable, *launcher, "benchmarks.rivals.training", *words]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-4000:]
        found: dict[str, Any] = json.loads(out.read_text())
        return found


def compared(losses: dict[str, list[float]]) -> dict[str, float]:
    """Largest relative difference of a step's loss from our plain engine's, by engine; fails above the tolerance."""
    expected = next(iter(losses.values()))
    apart = {
        name: max(abs(one - other) / abs(other) for one, other in zip(found, expected, strict=True))
        for name, found in losses.items()
    }
    assert max(apart.values()) <= TOLERANCE, f"losses differ by {apart}"
    assert len(set(expected)) == len(expected), f"nothing is learned: losses {expected}"
    return apart


def measured(*, quick: bool, rounds: int) -> dict[str, Any]:
    """Both networks, or the small one alone."""
    sizes = {"small": (64, 4)} if quick else {"small": (256, 8), "vgg16": (224, 4)}
    record: dict[str, Any] = {"ranks": RANKS, "steps_compared": STEPS, "tolerance": TOLERANCE, "networks": {}}
    for network, (crop, images) in sizes.items():
        raced = ganged(network, crop, images, rounds, ENGINES)
        apart = compared(raced["losses"])
        alone = {} if quick else {name: ganged(network, crop, images, 0, [name])["grown_mib"] for name in ENGINES}
        resumed = ganged(network, RESUMING_CROP, RESUMING_RANKS, "resumed", ENGINES, RESUMING_RANKS)
        record["networks"][network] = {
            "crop": crop,
            "images_a_step": images,
            "engines": {
                name: {
                    **raced["steps"][name],
                    "loss_apart": apart[name],
                    "grown_mib": alone.get(name),
                    "resumed_equal": resumed[name],
                }
                for name in ENGINES
            },
        }
    return record


def rows(record: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    """A row a network and engine, for people."""
    yield (
        "engine",
        "network",
        "steps/s",
        "ratio",
        "grown MiB a rank",
        "largest difference of a loss",
        "resumes to the bit",
    )
    for network, found in record["networks"].items():
        for name, row in found["engines"].items():
            steps = row["images_per_s"] / found["images_a_step"]
            grown = "" if row["grown_mib"] is None else f"{row['grown_mib']:.0f}"
            yield (
                name,
                network,
                f"{steps:.2f}",
                f"{row['ratio']:.2f}",
                grown,
                f"{row['loss_apart']:.1e}",
                "yes" if row["resumed_equal"] else "no",
            )


if __name__ == "__main__":
    where, backbone, side, count, turns = sys.argv[1:6]
    if turns == "resumed":
        resuming_member(Path(where), backbone, int(side), int(count), sys.argv[6:])
    else:
        member(Path(where), backbone, int(side), int(count), int(turns), sys.argv[6:])
