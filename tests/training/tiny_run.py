"""A tiny Fit in a process of its own: `python tiny_run.py CASES.json` trains every case in turn, as one rank.

A case: folder, and what differs from the defaults of Case. Each writes folder/curve-RANK.jsonl (a line a record) and,
when it fails, folder/error-RANK.txt. At the end the last one's folder gets threads-RANK.txt: the threads of process
groups that are still there, a line each.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from amn_dist.config import EngineSection, FitSection
from amn_dist.errors import AmnError, ShardError
from amn_dist.loaders.order import batch_ordinals
from amn_dist.ops.sample_dropout import sample_dropout
from amn_dist.records import Batch, CropRule
from amn_dist.training.engines.engine import joined
from amn_dist.training.loop import fit

SAMPLES = 23
SIDE = 8
GO = "go"
"""A rank that is late leaves its gang when a file of this name is in the case's folder."""
PATIENCE_S = 240.0


@dataclass(frozen=True)
class Case:
    """One run. lone: one tensor is trained, the weights of a classifier of means. kill_at, stop_at: after this step the
    rank `struck` is sent a signal; missing_at: it misses the shard of this step; late: it leaves the gang after the
    others; nan_key: a sample that is not a number."""

    folder: str
    engine: str = "torch"
    zero: int = 0
    precision: str = "fp32"
    steps: int = 12
    section: dict[str, Any] = field(default_factory=dict)
    dropout: float = 0.0
    lone: bool = False
    kill_at: int = 0
    stop_at: int = 0
    missing_at: int = 0
    late: bool = False
    struck: int = 0
    nan_key: str = ""
    timeout_s: float = 60.0


class TinyNet(nn.Module):
    """Two trained layers behind one that is in no optimiser group; lone: one, behind the mean of all pixels."""

    def __init__(self, dropout: float, *, lone: bool) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.body = nn.Conv2d(4, 8, 3, padding=1)
        self.norm = nn.GroupNorm(2, 8)
        self.head = nn.Conv2d(8, 3, 1)
        self.dropout, self.lone = dropout, lone

    def forward(self, image: Tensor, draws: Sequence[int] = ()) -> Tensor:
        hidden = functional.relu(self.norm(self.body(functional.relu(self.stem(image)))))
        if self.lone:
            pooled = functional.adaptive_avg_pool2d(hidden.contiguous(memory_format=torch.channels_last), 1)
            return self.head(pooled).expand(-1, -1, SIDE, SIDE)
        return self.head(sample_dropout(hidden, draws, self.dropout) if self.dropout else hidden)


@dataclass
class TinyFit:
    """Balanced cross-entropy whose denominators are pooled over the global batch."""

    section: FitSection
    dropout: float = 0.0
    lone: bool = False
    name: str = "tiny"
    rule: CropRule = field(default_factory=lambda: CropRule(size=SIDE, rescale=(1.0, 1.0)))

    def network(self) -> nn.Module:
        return TinyNet(self.dropout, lone=self.lone)

    def parameter_groups(self, network: nn.Module) -> list[dict[str, Any]]:
        assert isinstance(network, TinyNet)
        if self.lone:
            return [{"params": [network.head.weight], "lr": self.section.lr_head, "weight_decay": 0.0}]
        body = [*network.body.parameters(), *network.norm.parameters()]
        return [
            {"params": body, "lr": self.section.lr, "weight_decay": self.section.weight_decay},
            {"params": list(network.head.parameters()), "lr": self.section.lr_head, "weight_decay": 0.0},
        ]

    def normalisers(self, batch: Batch) -> Tensor:
        assert batch.label is not None
        return torch.stack([(batch.label == 0).sum(), ((batch.label > 0) & (batch.label < 255)).sum()]).double()

    def losses(self, network: nn.Module, batch: Batch, pooled: Tensor) -> dict[str, Tensor]:
        assert batch.label is not None
        loss = functional.cross_entropy(
            network(batch.image, batch.draws), batch.label.long(), ignore_index=255, reduction="none"
        )
        background = loss[batch.label == 0].sum() / pooled[0]
        foreground = loss[batch.label > 0].sum() / pooled[1]
        return {"background": background, "foreground": foreground, "total": (background + foreground) / 2}


def sample(ordinal: int, nan_key: str) -> tuple[Tensor, Tensor]:
    """Image f32[3, S, S] and label uint8[S, S] of an ordinal; the share of background differs a lot."""
    random = torch.Generator().manual_seed(ordinal)
    image = torch.randn(3, SIDE, SIDE, generator=random)
    label = torch.randint(0, 3 + ordinal % 3, (SIDE, SIDE), generator=random) % 3
    label[image[0] > 1.2] = 255
    return image * (float("nan") if f"key{ordinal}" == nan_key else 1), label.to(torch.uint8)


def batches(consumed: int, batch: int, rank: int, world: int, nan_key: str) -> Iterator[Batch]:
    """This rank's batches from a global sample on."""
    for step in count(consumed // batch):
        share = batch_ordinals([7, 9, 7], seed=0, step=step, batch=batch, rank=rank, world=world).tolist()
        images, labels = zip(*(sample(ordinal, nan_key) for ordinal in share), strict=True)
        tags = torch.zeros(len(share), 2)
        yield Batch(tuple(f"key{o}" for o in share), tuple(share), torch.stack(images), tags, torch.stack(labels))


def shards(case: Case, consumed: int, batch: int, rank: int, world: int) -> Iterator[Batch]:
    """The batches of a rank whose disk may lack a shard."""
    for number, made in enumerate(batches(consumed, batch, rank, world, case.nan_key), 1):
        if number == case.missing_at and rank == case.struck:
            raise ShardError("000003.tar: no such file; is the storage mounted on this node?")
        yield made


def train(case: Case) -> None:
    """Run one case as the rank the environment says."""
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    torch.set_num_threads(1 + case.lone)  # with two, gradients of a 1x1 convolution over one pixel have odd strides
    folder = Path(case.folder)
    folder.mkdir(parents=True, exist_ok=True)
    settings = {"batch": 6, "lr": 0.05, "lr_head": 0.2, "checkpoint_every": 4, "log_every": 1, **case.section}
    section = FitSection(steps=case.steps, **settings)

    def observe(record: dict[str, Any]) -> None:
        with (folder / f"curve-{rank}.jsonl").open("a") as lines:
            lines.write(json.dumps(record) + "\n")
        strikes = {case.kill_at: signal.SIGKILL, case.stop_at: signal.SIGTERM}
        if record.get("step") in strikes and rank == case.struck:
            os.kill(os.getpid(), strikes[record["step"]])

    try:
        fit(
            TinyFit(section, case.dropout, lone=case.lone),
            lambda consumed: shards(case, consumed, section.batch, rank, world),
            folder=folder,
            engine=EngineSection.model_validate(
                {"name": case.engine, "zero": case.zero, "precision": case.precision, "timeout_s": case.timeout_s}
            ),
            seed=3,
            samples=SAMPLES,
            observe=observe,
        )
    except AmnError as error:
        (folder / f"error-{rank}.txt").write_text(f"{type(error).__name__}: {error}")


def train_in_child(case: Case) -> None:
    """Run a case that is killed, and note the signal that ended it."""
    child = os.fork()
    if child == 0:
        train(case)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    (Path(case.folder) / "signal.txt").write_text(str(os.WTERMSIG(status)))


def wait_to_go(folder: Path) -> None:
    """Return when the test says that the others have left."""
    end = time.monotonic() + PATIENCE_S
    while not (folder / GO).exists():
        assert time.monotonic() < end, f"no {GO} in {folder} within {PATIENCE_S:.0f} s"
        time.sleep(0.02)


def group_threads() -> list[str]:
    """Names of the threads of this process that work for a process group."""
    names = [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]
    return [name for name in names if name.startswith("pt_gloo")]


def run(cases: list[Case]) -> None:
    """All cases, one after the other; more than one in one gang."""
    rank, alone = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")) == 1
    last, name = cases[-1], min(case.engine for case in cases)  # deepspeed's, if any is
    with ExitStack() as stack:
        if not alone and (len(cases) > 1 or last.late):
            stack.enter_context(joined(EngineSection.model_validate({"name": name, "timeout_s": last.timeout_s})))
        for case in cases:
            (train_in_child if case.kill_at and alone else train)(case)
        if last.late and rank == last.struck:
            wait_to_go(Path(last.folder))
    (Path(last.folder) / f"threads-{rank}.txt").write_text("\n".join(group_threads()))


if __name__ == "__main__":
    run([Case(**{**asdict(Case("")), **row}) for row in json.loads(Path(sys.argv[1]).read_text())])
