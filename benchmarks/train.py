"""How fast does a network learn here, against the published loop in plain torch; and on two processes against one?

The second question (`--gangs`) is asked of the classifier, one core a process, with every ZeRO stage. Networks and
crops are the published ones; on a CPU a step has fewer images (`--images`). Every rival sees the same images, and its
first loss must be that of the published loop. Where the device computes bf16 natively, the default precision races too.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from amn_dist.config import Config, EngineSection, load_config
from amn_dist.interfaces import Fit
from amn_dist.loaders.batches import batches
from amn_dist.models.backbones.blueprint import EPSILON, FixedBatchNorm
from amn_dist.models.backbones.resnet import Bottleneck
from amn_dist.models.precision import native_bf16
from amn_dist.records import Batch
from amn_dist.shards.shardset import ShardSet
from amn_dist.stages.amn import AmnFit
from amn_dist.stages.classify import ClassifyFit
from amn_dist.stages.irn import IrnFit
from amn_dist.stages.segment import SegmentFit
from amn_dist.training.engines.engine import Engine, build_engine, joined
from amn_dist.training.engines.torch import TorchEngine
from amn_dist.training.world import World
from benchmarks.device.steps import engine_step
from benchmarks.harness import race, rates, write_result
from benchmarks.inputs import training_batch
from benchmarks.reference.published_train import published_step
from data_shards.synthetic import pack_synthetic

CONFIG = Path(__file__).resolve().parents[1] / "configs" / "voc12_amn.yaml"
FITS = {"classify": ClassifyFit, "amn": AmnFit, "irn": IrnFit, "segment": SegmentFit}
CLASSES = 21
DRAWN = 6
"""Classes of the drawn scenes that the loader reads."""
TOLERANCE = 1e-3
"""Relative, on the first loss: convolutions of other layouts add in another order."""
BF16_TOLERANCE = 2e-2
"""The same, of the losses in bf16."""
GANGS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("plain", {"name": "torch"}),
    ("zero0", {"zero": 0}),
    ("zero1", {"zero": 1}),
    ("zero2", {"zero": 2}),
)


def published(stage: str, *, crop: int, classes: int = CLASSES) -> Fit:
    """The published Fit of a stage with random weights, at another crop if asked."""
    off = tuple(f"{name}.backbone.weights=null" for name in FITS)
    settings = (*off, f"{stage}.crop={crop}") if crop else off
    config: Config = load_config(CONFIG, settings)
    torch.manual_seed(0)
    fit: Fit = FITS[stage](config, classes)  # type: ignore[abstract]
    return fit


def built(fit: Fit, **settings: Any) -> Engine:
    torch.manual_seed(0)
    return build_engine(fit, EngineSection.model_validate({"precision": "fp32", **settings}), World(), pieces=1)


def rivals(fit: Fit, batch: Batch) -> dict[str, Callable[[], float]]:
    """The published loop and both engines on one batch."""
    torch.manual_seed(0)
    found: dict[str, Callable[[], float]] = {
        "published": published_step(fit, batch),
        "torch": partial(engine_step, built(fit, name="torch"), fit, batch),
        "deepspeed": partial(engine_step, built(fit), fit, batch),
    }
    if native_bf16():
        found["deepspeed bf16"] = partial(engine_step, built(fit, precision="bf16"), fit, batch)
    return found


def what_pays(fit: Fit, batch: Batch) -> dict[str, Callable[[], float]]:
    """The torch engine with one thing changed at a time."""
    found: dict[str, Callable[[], float]] = {}
    for name in ("as it is", "contiguous", "fused optimiser", "folded fixed norms"):
        engine = built(fit, name="torch")
        assert isinstance(engine, TorchEngine)
        seen = batch
        if name == "contiguous":
            engine.network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
            seen = Batch(batch.keys, batch.ordinals, batch.image.contiguous(), batch.tags, batch.label)
        if name == "fused optimiser":
            for group in engine.optimiser.param_groups:
                group["fused"], group["foreach"] = True, False
        if name == "folded fixed norms":
            fold_fixed(engine.network)
        found[name] = partial(engine_step, engine, fit, seen)
    return found


def fold_fixed(network: Any) -> None:
    """Put the norms of layers that do not learn into their convolutions."""
    backbone = network.backbone
    for block in (
        b for span in backbone.spans[: backbone.frozen_taps] for n in span for b in backbone.features[n].modules()
    ):
        if isinstance(block, Bottleneck):
            for number in (1, 2, 3):
                _fold(getattr(block, f"conv{number}"), getattr(block, f"bn{number}"))
                setattr(block, f"bn{number}", nn.Identity())


def _fold(convolution: nn.Conv2d, norm: FixedBatchNorm) -> None:
    weight, bias = fuse_conv_bn_weights(
        convolution.weight, None, norm.running_mean, norm.running_var, EPSILON, norm.weight, norm.bias
    )
    convolution.weight = nn.Parameter(
        weight.detach().contiguous(memory_format=torch.channels_last), requires_grad=False
    )
    convolution.bias = nn.Parameter(bias.detach(), requires_grad=False)


def agreeing(found: dict[str, Callable[[], float]]) -> dict[str, float]:
    """First losses; all must be the first one's."""
    losses = {name: call() for name, call in found.items()}
    expected = next(iter(losses.values()))
    for name, loss in losses.items():
        tolerance = BF16_TOLERANCE if name.endswith("bf16") else TOLERANCE
        assert abs(loss - expected) <= tolerance * abs(expected), f"{name}: first loss {loss}, expected {expected}"
    return losses


def with_loader(stage: str, crop: int, count: int, rounds: int) -> dict[str, Any]:
    """Steps on images at hand against steps that take theirs from shards; both train."""
    fit = published(stage, crop=crop, classes=DRAWN + 1)
    with tempfile.TemporaryDirectory() as folder:
        pack_synthetic(Path(folder) / "set", images=4 * count, seed=0, classes=DRAWN)
        shards = ShardSet.open(f"{folder}/set")
        labels = None if fit.name == "classify" else (shards, "gt.png")
        loader = fit.config.loader  # type: ignore[attr-defined]
        source = batches(shards, labels, rule=fit.rule, batch=count, seed=0, loader=loader)
        engine, first = built(fit), next(source)
        timings = race(
            {
                "loader off": partial(engine_step, engine, fit, first),
                "loader on": lambda: engine_step(engine, fit, next(source).to("cpu")),
                "loader alone": lambda: next(source),
            },
            rounds=rounds,
        )
        source.close()  # type: ignore[attr-defined]
    return rates(timings, count)


def gang_member(world: World, stage: str, crop: int, count: int, rounds: int, out: Path) -> None:
    """As one rank: time the engines on this rank's share of the batch; the first rank writes the figures."""
    fit = published(stage, crop=crop)
    whole = training_batch(fit, count, CLASSES)
    share = list(whole.split(count // world.size))[world.rank]
    pooled = world.sum(fit.normalisers(share))
    engines = {}
    for name, settings in GANGS:
        torch.manual_seed(0)
        section = EngineSection.model_validate({"precision": "fp32", **settings})
        engines[name] = build_engine(fit, section, world, pieces=1)

    def step(engine: Engine) -> float:
        parts = [parts["total"] for parts in engine.accumulate([share], pooled)]
        engine.update(1.0)
        return float(world.sum(parts[0].double()[None]))

    losses = [step(engine) for engine in engines.values()]
    figures = race({name: partial(step, engine) for name, engine in engines.items()}, rounds=rounds)
    for engine in engines.values():
        engine.close()
    assert max(losses) - min(losses) <= TOLERANCE * abs(losses[0]), losses
    if world.rank == 0:
        gradients = sum(p.numel() for group in fit.parameter_groups(fit.network()) for p in group["params"]) * 4
        out.write_text(json.dumps({"loss": losses[0], "gradient_bytes": gradients, **rates(figures, count)}))


def gangs(stage: str, crop: int, count: int, rounds: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Figures of one and two processes on the same images, and of one on half of them; one core each."""
    for name, size, images in (("one", 1, count), ("one on half", 1, count // 2), ("two", 2, count)):
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "figures.json"
            launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={size}", "-m", "--"]
            words = ["--member", str(out), "--stages", stage, "--crop", str(crop), "--images", str(images)]
            environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
            command = [sys.executable, *launcher, "benchmarks.train", *words, "--rounds", str(rounds)]
            subprocess.run(command, check=True, env=environment)
            yield name, json.loads(out.read_text())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stages", nargs="*", default=list(FITS), choices=list(FITS))
    parser.add_argument("--images", type=int, default=2, help="a step")
    parser.add_argument("--crop", type=int, default=0, help="side, pixels; 0: the published one")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--gangs", action="store_true", help="ask the second question alone")
    parser.add_argument("--member", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.gangs:
        found = {"question": "two processes against one, fp32, one core each", "images_a_step": asked.images}
        write_result("train_gangs", {**found, "gangs": dict(gangs("classify", asked.crop, asked.images, asked.rounds))})
        return
    with joined(EngineSection(name="deepspeed")) as world:
        if asked.member:
            gang_member(world, asked.stages[0], asked.crop, asked.images, asked.rounds, asked.member)
        else:
            compare(asked)


def compare(asked: argparse.Namespace) -> None:
    """The first question: steps of every stage here and in the published loop, and what pays."""
    record: dict[str, Any] = {"question": "a training step here against the published loop", "stages": {}}
    record |= {"images_a_step": asked.images, "threads": torch.get_num_threads()}
    for stage in asked.stages:
        fit = published(stage, crop=asked.crop)
        batch = training_batch(fit, asked.images, CLASSES)
        rival = rivals(fit, batch)
        losses = agreeing(rival)
        record["stages"][stage] = {"crop": fit.rule.size, "loss": losses["published"]}
        record["stages"][stage] |= {"engines": rates(race(rival, rounds=asked.rounds), asked.images)}
        record["stages"][stage]["loader"] = with_loader(stage, asked.crop, asked.images, asked.rounds)
    fit = published("classify", crop=asked.crop)
    variants = what_pays(fit, training_batch(fit, asked.images, CLASSES))
    agreeing(variants)
    record["what_pays"] = rates(race(variants, rounds=asked.rounds), asked.images)
    write_result("train", record)


if __name__ == "__main__":
    main()
