"""What the loop does on a device, on a CPU whose optimiser guards as a device's does: real engines, real numbers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from amn_dist.config import EngineSection, FitSection
from amn_dist.errors import StageError
from amn_dist.records import Batch
from amn_dist.training.checkpoints import complete
from amn_dist.training.engines.torch import TorchEngine
from amn_dist.training.ledger import LOOK_EVERY
from amn_dist.training.loop import CHECKPOINTS, STOP, FitContext, _run
from amn_dist.training.world import World
from tests.training.tiny_run import TinyFit, batches

SGD = {"optimiser": "sgd", "momentum_slip": False}
ADAM = {"optimiser": "adam", "lr": 0.01, "lr_head": 0.02, "schedule": "constant"}


def section(**settings: Any) -> FitSection:
    return FitSection(**{"batch": 6, "lr": 0.05, "lr_head": 0.2, "checkpoint_every": 4, "steps": 12, **settings})


def engine(fit: TinyFit, *, fused: bool) -> TorchEngine:
    torch.manual_seed(7)
    return TorchEngine(fit, EngineSection(name="torch", precision="fp32"), World(), fused=fused)


def run(
    folder: Path, trained: TorchEngine, *, nan_key: str = "", done: int = 0, stop_at: int = 0, **minutes: float
) -> list[dict[str, Any]]:
    """Train to the end, or to an error; the records. stop_at: the step whose batch asks to stop."""
    records: list[dict[str, Any]] = []
    fit = trained.fit
    context = FitContext(
        fit, folder, EngineSection(name="torch", **minutes), World(), 3, 12, 1, records.append, lambda checkpoint: None
    )

    def source(consumed: int) -> Iterator[Batch]:
        for step, batch in enumerate(batches(consumed, 6, 0, 1, nan_key), consumed // 6 + 1):
            if step == stop_at:
                (folder / STOP).touch()
            yield batch

    _run(context, trained, source, done)
    return records


def state(trained: TorchEngine) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in trained.network.state_dict().items()}


@pytest.mark.parametrize("optimiser", [SGD, ADAM], ids=["sgd", "adam"])
def test_a_guarded_run_learns_what_a_plain_one_learns(optimiser: dict[str, Any], tmp_path: Path) -> None:
    runs = {}
    for fused in (False, True):
        fit = TinyFit(section(log_every=5, **optimiser))
        runs[fused] = (trained := engine(fit, fused=fused)), run(tmp_path / str(fused), trained)
    plain, guarded = (records for _, records in runs.values())
    assert [record["step"] for record in guarded] == [record["step"] for record in plain] == [5, 10, 12]
    for name in ("background", "total", "lr", "gradient_norm"):
        assert [record[name] for record in guarded] == pytest.approx([record[name] for record in plain], rel=1e-5)
    for name, value in state(runs[True][0]).items():
        torch.testing.assert_close(value, state(runs[False][0])[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("optimiser", [SGD, ADAM], ids=["sgd", "adam"])
def test_a_bad_loss_is_found_later_and_leaves_the_weights_as_they_were(
    optimiser: dict[str, Any], tmp_path: Path
) -> None:
    fit = TinyFit(section(log_every=100, checkpoint_every=100, micro_batch=2, **optimiser))
    trained = engine(fit, fused=True)
    seen: list[dict[str, Tensor]] = []
    update = trained.update

    def watched(factor: float, spoiled: Tensor | None = None) -> None:
        update(factor, spoiled)
        seen.append(state(trained))

    trained.update = watched  # type: ignore[method-assign]
    with pytest.raises(StageError, match=r"tiny: step 5: the loss is not finite \(background nan.* with (.*); it was"):
        run(tmp_path, trained, nan_key="key2")
    # Steps after the bad one were asked for before the host looked; none of them was made.
    assert len(seen) == LOOK_EVERY
    assert all(torch.equal(later[name], seen[3][name]) for later in seen[4:] for name in later)
    assert not torch.equal(seen[3]["head.weight"], seen[2]["head.weight"])
    assert not (tmp_path / CHECKPOINTS).exists()


def test_the_samples_of_a_bad_loss_are_named(tmp_path: Path) -> None:
    errors = []
    for fused in (False, True):
        trained = engine(TinyFit(section(micro_batch=2, log_every=100)), fused=fused)
        with pytest.raises(StageError) as caught:
            run(tmp_path / str(fused), trained, nan_key="key2")
        errors.append(str(caught.value))
    assert errors[0] == errors[1] and "key2" in errors[0]


def test_a_wish_to_stop_is_seen_at_the_next_look(tmp_path: Path) -> None:
    trained = engine(TinyFit(section(log_every=3, checkpoint_every=100)), fused=True)
    with pytest.raises(StageError, match="tiny: stopped at step 6; the same command goes on"):
        run(tmp_path, trained, stop_at=4)
    assert [path.name for path in complete(tmp_path / CHECKPOINTS)] == ["000006"]


@pytest.mark.parametrize("optimiser", [SGD, ADAM], ids=["sgd", "adam"])
@pytest.mark.parametrize(("before", "after"), [(True, True), (True, False), (False, True)])
def test_guarded_and_plain_engines_go_on_from_each_other(
    optimiser: dict[str, Any], before: bool, after: bool, tmp_path: Path
) -> None:
    fit = TinyFit(section(log_every=1, **optimiser))
    whole = engine(fit, fused=after)
    expected = run(tmp_path / "whole", whole)
    first = engine(fit, fused=before)
    run(tmp_path / "half", first)
    second = engine(fit, fused=after)
    second.load(tmp_path / "half" / CHECKPOINTS / "000008")
    found = run(tmp_path / "half", second, done=8)
    rounding = {"rel": 0 if before == after else 1e-5, "abs": 0 if before == after else 1e-7}
    assert [r["total"] for r in found] == pytest.approx([r["total"] for r in expected[8:]], **rounding)
    counters = [moment["step"] for moment in second.optimiser.state.values() if "step" in moment]
    assert {float(step) for step in counters} == ({12.0} if optimiser is ADAM else set())


@pytest.mark.parametrize(
    ("minutes", "steps"), [(0.0, ["000012", "000008"]), (1e4, ["000012"]), ("auto", ["000012", "000008"])]
)
def test_checkpoints_that_come_too_soon_are_left_out(minutes: Any, steps: list[str], tmp_path: Path) -> None:
    trained = engine(TinyFit(section()), fused=True)
    run(tmp_path, trained, checkpoint_minutes=minutes)
    assert [path.name for path in complete(tmp_path / CHECKPOINTS)] == steps
