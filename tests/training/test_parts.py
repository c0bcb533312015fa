"""What the loop is made of, each on its own."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from amn_dist.config import Amn, Classify, Discriminate, FitSection, Irn, Segment
from amn_dist.errors import ConfigError, StageError
from amn_dist.models.precision import resolve_precision
from amn_dist.records import Batch
from amn_dist.training.checkpoints import KEEP, State, complete, resume, save_checkpoint
from amn_dist.training.engines.engine import Engine
from amn_dist.training.loop import count_pieces, count_steps
from amn_dist.training.meter import Meter
from amn_dist.training.optimiser import freeze_others, make_optimiser, rate_factor, set_rates
from amn_dist.training.stopping import stop_on_sigterm
from amn_dist.training.world import World, join_world, watchdog_settings

STATE = State(0, 0, "torch", 0, 1, {})


@dataclass
class Shelf:
    """An engine that is one number; reading a damaged file raises as torch does."""

    value: float = -1.0
    network: nn.Module = field(default_factory=nn.Identity)
    initial_rates: list[float] = field(default_factory=list)
    norm: Tensor = field(default_factory=lambda: torch.tensor(0.0))

    def accumulate(self, pieces: Sequence[Batch], pooled: Tensor) -> list[dict[str, Tensor]]:
        raise NotImplementedError

    def update(self, factor: float) -> None:
        raise NotImplementedError

    def close(self) -> None:
        pass

    def save(self, folder: Path) -> None:
        torch.save({"value": self.value}, folder / "value.pt")

    def load(self, folder: Path) -> None:
        self.value = torch.load(folder / "value.pt", weights_only=True)["value"]


def shelf(value: float = -1.0) -> Engine:
    return Shelf(value)  # type: ignore[return-value]


def saved(folder: Path, steps: Sequence[int], state: State = STATE) -> None:
    for step in steps:
        save_checkpoint(folder, shelf(float(step)), World(), replace(state, step=step, consumed=16 * step))


def resumed(folder: Path) -> tuple[float, int, list[str]]:
    """Value of the engine, step, warnings."""
    warnings: list[str] = []
    engine, step = resume(folder, shelf, World(), warnings.append)
    assert isinstance(engine, Shelf)
    return engine.value, step, warnings


def test_poly_falls_to_zero_at_the_end() -> None:
    factors = [rate_factor(Classify(), step, 100) for step in range(100)]
    assert factors[0] == 1 and factors[50] == pytest.approx(0.5**0.9) and factors[99] == pytest.approx(0.01**0.9)
    assert factors == sorted(factors, reverse=True)


def test_segment_changes_its_rate_every_ten_steps() -> None:
    factors = [rate_factor(Segment(), step, 100) for step in range(30)]
    assert set(factors[:10]) == {1.0} and factors[10:20] == pytest.approx([0.9**0.9] * 10)


def test_discriminate_changes_its_rate_every_epoch() -> None:
    section = Discriminate(epochs=4)
    factors = [rate_factor(section, step, 100) for step in range(100)]
    assert [factors.count(value) for value in sorted(set(factors), reverse=True)] == [25, 25, 25, 25]
    assert factors[::25] == pytest.approx([(1 - epoch / 4) ** 0.9 for epoch in range(4)])


def test_amn_keeps_its_rate() -> None:
    assert {rate_factor(Amn(), step, 100) for step in range(100)} == {1.0}


def test_optimisers_are_the_published_ones() -> None:
    def settings(section: FitSection) -> tuple[type, dict[str, object]]:
        optimiser = make_optimiser(section, [{"params": [nn.Parameter(torch.ones(2))], "lr": 0.3, "weight_decay": 0.5}])
        return type(optimiser), optimiser.param_groups[0]

    for section, momentum in ((Irn(), 1e-4), (Segment(), 0.9), (Irn(momentum_slip=False), 0.9)):
        kind, group = settings(section)
        assert (kind, group["momentum"], group["lr"], group["weight_decay"]) == (torch.optim.SGD, momentum, 0.3, 0.5)
    kind, group = settings(Amn())
    assert (kind, group["betas"], group["eps"]) == (torch.optim.Adam, (0.9, 0.999), 1e-8)
    assert (group["lr"], group["weight_decay"]) == (0.3, 0.5)


def test_rates_keep_their_proportion() -> None:
    groups = [{"lr": 7.0}, {"lr": 7.0}]
    set_rates(groups, [0.1, 1.0], 0.5)
    assert groups == [{"lr": 0.05}, {"lr": 0.5}]


def test_freezing_keeps_what_is_in_a_group() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    freeze_others(network, [{"params": list(network[1].parameters())}])
    assert [p.requires_grad for p in network.parameters()] == [False, False, True, True]


@pytest.mark.parametrize(
    ("batch", "micro", "processes", "pieces"),
    [(16, 0, 1, 1), (16, 4, 1, 4), (16, 3, 1, 6), (16, 4, 2, 2), (10, 0, 4, 1), (10, 2, 4, None), (3, 0, 4, None)],
)
def test_every_rank_has_as_many_micro_batches(batch: int, micro: int, processes: int, pieces: int | None) -> None:
    section = FitSection(batch=batch, micro_batch=micro)
    if pieces is None:
        with pytest.raises(ConfigError, match=rf"batch {batch}"):
            count_pieces(section, processes)
    else:
        assert count_pieces(section, processes) == pieces


def test_steps_come_from_epochs_unless_they_are_given() -> None:
    assert count_steps(Classify(), 10_582) == 3305
    assert count_steps(Irn(), 82_783) == 7758
    assert count_steps(Segment(), 10_582) == 20_000
    with pytest.raises(ConfigError, match="the training set has 15 images"):
        count_steps(Classify(), 15)


def test_precision_can_be_asked_for() -> None:
    assert resolve_precision("bf16") == torch.bfloat16 and resolve_precision("fp32") == torch.float32
    assert resolve_precision("auto") in (torch.bfloat16, torch.float32)


def test_alone_without_a_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    world = join_world()
    assert world == World() and world.first("x") == "x" and world.gather(["a"]) == ["a"]


@pytest.mark.parametrize(
    ("told", "match"),
    [
        ({"WORLD_SIZE": "2", "RANK": "0"}, "MASTER_ADDR, MASTER_PORT not set"),
        ({"WORLD_SIZE": "2", "RANK": "2"}, "expected 0 to 1"),
        ({"WORLD_SIZE": "2", "RANK": "²"}, "RANK: found '²', expected a whole number"),
        ({"WORLD_SIZE": "9" * 5000}, "WORLD_SIZE: found '999"),
        ({"WORLD_SIZE": "2", "LOCAL_RANK": "2"}, "expected 0 to 1"),
        ({"WORLD_SIZE": "two"}, "expected a whole number"),
    ],
)
def test_half_a_launcher_is_refused(monkeypatch: pytest.MonkeyPatch, told: dict[str, str], match: str) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=match):
        join_world()


@pytest.mark.parametrize(("timeout_s", "heartbeat_s"), [(600.0, "600"), (90.2, "91"), (5.0, "60")])
def test_nccl_gives_up_as_late_as_it_is_told(timeout_s: float, heartbeat_s: str) -> None:
    settings = watchdog_settings(timeout_s)
    assert settings["TORCH_NCCL_HEARTBEAT_TIMEOUT_SEC"] == heartbeat_s
    assert settings["TORCH_NCCL_ASYNC_ERROR_HANDLING"] == "3"


def test_the_newest_checkpoint_is_taken_and_two_stay(tmp_path: Path) -> None:
    saved(tmp_path, [3, 6, 9, 12])
    assert [path.name for path in complete(tmp_path)] == ["000012", "000009"] and KEEP == 2
    assert resumed(tmp_path) == (12.0, 12, [])


def test_nothing_to_resume_is_a_new_engine(tmp_path: Path) -> None:
    assert resumed(tmp_path / "absent") == (-1.0, 0, [])


def test_a_checkpoint_without_its_last_file_does_not_count(tmp_path: Path) -> None:
    saved(tmp_path, [3, 6])
    (tmp_path / "000006" / "state.json").unlink()
    (tmp_path / ".tmp-000009").mkdir()
    assert resumed(tmp_path) == (3.0, 3, [])
    saved(tmp_path, [6])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["000003", "000006"]


def damage_length(folder: Path) -> None:
    (folder / "value.pt").write_bytes((folder / "value.pt").read_bytes()[:-20])


def damage_content(folder: Path) -> None:
    content = (folder / "value.pt").read_bytes()
    (folder / "value.pt").write_bytes(b"\0" * len(content))


def damage_state(folder: Path) -> None:
    (folder / "state.json").write_text('{"step": 6')


def stating(**changes: object) -> Callable[[Path], None]:
    """Damage that changes what state.json says."""

    def damage(folder: Path) -> None:
        state = json.loads((folder / "state.json").read_text())
        (folder / "state.json").write_text(json.dumps({**state, **changes}))

    return damage


def state_says_it_twice(folder: Path) -> None:
    text = (folder / "state.json").read_text()
    (folder / "state.json").write_text(text.replace('"step": 6', '"step": 3,\n "step": 6'))


def state_is_deep(folder: Path) -> None:
    (folder / "state.json").write_text("[" * 100_000)


@pytest.mark.parametrize(
    "damage",
    [
        *(damage_length, damage_content, damage_state, state_says_it_twice, state_is_deep),
        *(stating(step=value) for value in (True, 6.0, "6", -6, 7, float("nan"))),
        *(stating(consumed=-1), stating(zero=None), stating(processes=2.5), stating(files=[])),
    ],
)
def test_an_unreadable_checkpoint_falls_back_with_a_warning(tmp_path: Path, damage: object) -> None:
    saved(tmp_path, [3, 6])
    damage(tmp_path / "000006")  # type: ignore[operator]
    value, step, warnings = resumed(tmp_path)
    assert (value, step) == (3.0, 3)
    assert len(warnings) == 1 and "000006: cannot be read" in warnings[0]


@pytest.mark.parametrize(("before", "now", "warns"), [("cpu", "cpu", 0), ("cpu", "cuda", 1), ("", "cuda", 0)])
def test_a_checkpoint_of_another_machine_is_gone_on_from_with_a_warning(
    before: str, now: str, warns: int, tmp_path: Path
) -> None:
    saved(tmp_path, [3], replace(STATE, machine=before))
    warnings: list[str] = []
    _, step = resume(tmp_path, shelf, World(), warnings.append, machine=now)
    assert step == 3 and len(warnings) == warns
    assert not warns or "000003: was trained on cpu, goes on on cuda; results mix the two" in warnings[0]


def test_folders_that_are_no_checkpoints_are_left_alone(tmp_path: Path) -> None:
    saved(tmp_path, [3])
    for name in ("000006²", "٠٠٠٠٠٦", "6", "1" * 40, "00000x"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "state.json").write_text("{}")
    assert resumed(tmp_path) == (3.0, 3, [])


def test_checkpoints_of_which_none_can_be_read_are_not_trained_over(tmp_path: Path) -> None:
    saved(tmp_path, [3, 6])
    for name in ("000003", "000006"):
        damage_content(tmp_path / name)
    with pytest.raises(StageError, match=r"000003: cannot be read \(.*\), and there is no older one; --redo"):
        resumed(tmp_path)
    assert [path.name for path in complete(tmp_path)] == ["000006", "000003"]


def test_what_is_trained_again_outlives_the_checkpoints_that_could_not_be_read(tmp_path: Path) -> None:
    saved(tmp_path, [3, 9])
    damage_content(tmp_path / "000009")
    assert resumed(tmp_path)[:2] == (3.0, 3)
    saved(tmp_path, [6])
    assert [path.name for path in complete(tmp_path)] == ["000006", "000003"]


def test_state_says_where_the_run_is(tmp_path: Path) -> None:
    saved(tmp_path, [3])
    state = json.loads((tmp_path / "000003" / "state.json").read_text())
    assert (state["step"], state["consumed"]) == (3, 48)
    assert state["files"] == {"value.pt": (tmp_path / "000003" / "value.pt").stat().st_size}


def test_sigterm_sets_the_event_and_the_handler_returns() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with stop_on_sigterm() as asked:
        assert not asked.is_set()
        os.kill(os.getpid(), signal.SIGTERM)
        assert asked.wait(5)
    assert signal.getsignal(signal.SIGTERM) is before


def test_outside_the_main_thread_signals_are_left_alone() -> None:
    events = []

    def enter() -> None:
        with stop_on_sigterm() as asked:
            events.append(asked.is_set())

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert events == [False]


def test_the_meter_counts_images_of_all_ranks() -> None:
    meter = Meter(batch=8)
    batch = Batch((), (), torch.empty(0), torch.empty(0))
    for _ in range(3):
        assert meter.next(iter([batch])) is batch
    first, empty = meter.read(), meter.read()
    assert first["images_per_s"] > 0 and 0 <= first["data_wait"] <= 1
    assert empty["images_per_s"] == 0
