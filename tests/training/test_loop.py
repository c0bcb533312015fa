"""The loop with real engines in real processes: equal curves, exact resumption, clean ends."""

from __future__ import annotations

import hashlib
import json
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

SCRIPT = Path(__file__).with_name("tiny_run.py")
SLIP_OFF = {"momentum_slip": False, "weight_decay": 0.01}
ADAM = {"optimiser": "adam", "schedule": "constant", "lr": 0.01, "lr_head": 0.02, "weight_decay": 0.01}
UNEVEN = {"batch": 5}
ZERO = [("deepspeed", zero) for zero in (0, 1, 2)]
ENGINES = [("torch", 0), *ZERO]


@dataclass(frozen=True)
class Outcome:
    """What gangs left behind."""

    root: Path
    gangs: list[Any]

    def records(self, name: str, rank: int = 0) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.root / name / f"curve-{rank}.jsonl").read_text().splitlines()]

    def curve(self, name: str, rank: int = 0) -> list[float]:
        return [record["total"] for record in self.records(name, rank) if "total" in record]

    def digest(self, name: str) -> str:
        return hashlib.sha256((self.root / name / "model.safetensors").read_bytes()).hexdigest()

    def error(self, name: str, rank: int = 0) -> str:
        return (self.root / name / f"error-{rank}.txt").read_text()


DROPOUT = {"dropout": 0.3, "section": SLIP_OFF}
NOT_A_NUMBER = "key2"
"""First seen in step 5."""


def together() -> list[dict[str, Any]]:
    """Cases of two ranks; they run first."""
    cases: list[dict[str, Any]] = []
    for engine, zero in ENGINES:
        of_engine = {"engine": engine, "zero": zero}
        cases.append({"folder": f"two-{engine}{zero}", "section": {**SLIP_OFF, "micro_batch": 2}, **of_engine})
    return [
        *cases,
        {"folder": "two-uneven-torch", "section": UNEVEN},
        *[{"folder": f"two-dropout-{engine}", "engine": engine, **DROPOUT} for engine in ("torch", "deepspeed")],
        {"folder": "two-nan-torch", "nan_key": NOT_A_NUMBER},
        {"folder": "two-of-one", "section": {"batch": 1}},
        {"folder": "two-unlike", "section": {"batch": 5, "micro_batch": 2}},
        *[{**case, "stop_at": 5, "struck": int(case["zero"] == 0)} for case in (*shrinking(), *staying())],
    ]


def shrinking() -> list[dict[str, Any]]:
    """Cases begun by two ranks and ended by one."""
    return [{"folder": f"shrink-{e}{z}", "engine": e, "zero": z, "section": ADAM} for e, z in ENGINES]


def staying() -> list[dict[str, Any]]:
    """Cases begun and ended by two ranks."""
    more = {"section": {**SLIP_OFF, "micro_batch": 2}}
    return [{"folder": f"stay-{e}{z}", "engine": e, "zero": z, **more} for e, z in ENGINES]


def growing() -> list[dict[str, Any]]:
    """Cases begun by one process and ended by two."""
    return [{"folder": f"grow-{e}{z}", "engine": e, "zero": z, "section": SLIP_OFF} for e, z in ENGINES]


def alone() -> list[dict[str, Any]]:
    """Cases of one process. Those that are killed run in a child, before anything has begun that a fork would upset."""
    cases: list[dict[str, Any]] = [
        {"folder": f"killed-{engine}", "engine": engine, "kill_at": kill_at, **DROPOUT}
        for kill_at in (7, 0)
        for engine in ("torch", "deepspeed")
    ]
    for engine, zero in ENGINES:
        of_engine = {"engine": engine, "zero": zero}
        cases += [
            {"folder": f"sgd-{engine}{zero}", "section": SLIP_OFF, **of_engine},
            {"folder": f"adam-{engine}{zero}", "section": ADAM, **of_engine},
            {"folder": f"bf16-{engine}{zero}", "section": SLIP_OFF, "precision": "bf16", **of_engine},
            {"folder": f"pieces-{engine}{zero}", "section": {**SLIP_OFF, "micro_batch": 2}, **of_engine},
            {"folder": f"lone-{engine}{zero}", "section": SLIP_OFF, "lone": True, **of_engine},
            {"folder": f"stop-{engine}{zero}", "section": ADAM, "stop_at": 5, **of_engine},
            {"folder": f"stop-{engine}{zero}", "section": ADAM, **of_engine},
        ]
    for engine in ("torch", "deepspeed"):
        cases += [
            {"folder": f"slip-{engine}", "engine": engine},
            {"folder": f"nan-{engine}", "engine": engine, "nan_key": NOT_A_NUMBER, "section": {"micro_batch": 2}},
            {"folder": f"dropout-{engine}", "engine": engine, **DROPOUT},
        ]
    return [
        *cases,
        {"folder": "uneven-torch", "section": UNEVEN},
        *shrinking(),
        *[{**case, "stop_at": 5} for case in growing()],
        {"folder": "other", "section": SLIP_OFF, "stop_at": 5},
        {"folder": "other", "section": SLIP_OFF, "engine": "deepspeed", "zero": 1},
    ]


def run(launch: Any, root: Path, name: str, cases: list[dict[str, Any]], *, ranks: int) -> Any:
    """Train the cases as a gang to its end."""
    listed = root / f"{name}.json"
    listed.write_text(json.dumps([{**case, "folder": str(root / case["folder"])} for case in cases]))
    gang = launch(SCRIPT, [listed] * ranks, into=root)
    gang.end()
    return gang


@pytest.fixture(scope="module")
def outcome(launch: Any, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    root = tmp_path_factory.mktemp("tiny")
    gangs = [
        run(launch, root, "together", together(), ranks=2),
        run(launch, root, "alone", alone(), ranks=1),
        run(launch, root, "again", [*staying(), *growing()], ranks=2),
    ]
    return Outcome(root, gangs)


def test_gangs_end_as_they_should(outcome: Outcome) -> None:
    for gang, ranks in zip(outcome.gangs, (2, 1, 2), strict=True):
        gang.end(*[0] * ranks)


def test_the_loss_falls(outcome: Outcome) -> None:
    for name in ("sgd-torch0", "adam-torch0"):
        curve = outcome.curve(name)
        assert len(curve) == 12 and curve[-1] < 0.95 * curve[0]


@pytest.mark.parametrize("zero", [0, 1, 2])
@pytest.mark.parametrize("kind", ["sgd", "adam", "pieces", "lone"])
def test_deepspeed_gives_the_curve_of_plain_torch(outcome: Outcome, kind: str, zero: int) -> None:
    assert outcome.curve(f"{kind}-deepspeed{zero}") == pytest.approx(outcome.curve(f"{kind}-torch0"), rel=1e-5)


@pytest.mark.parametrize(("engine", "zero"), ENGINES)
def test_bf16_stays_near_and_keeps_weights_in_fp32(outcome: Outcome, engine: str, zero: int) -> None:
    curve, exact = outcome.curve(f"bf16-{engine}{zero}"), outcome.curve("sgd-torch0")
    assert curve == pytest.approx(exact, rel=2e-2) and curve != exact
    weights = load_file(outcome.root / f"bf16-{engine}{zero}" / "model.safetensors")
    assert {str(tensor.dtype) for tensor in weights.values()} == {"torch.float32"}


def test_deepspeed_ends_with_the_weights_of_plain_torch(outcome: Outcome) -> None:
    ours = load_file(outcome.root / "sgd-torch0" / "model.safetensors")
    for zero in (0, 1, 2):
        other = load_file(outcome.root / f"sgd-deepspeed{zero}" / "model.safetensors")
        assert ours.keys() == other.keys()
        assert all((ours[name] - other[name]).abs().max() < 1e-5 for name in ours)


@pytest.mark.parametrize("engine", ["torch0", "deepspeed0"])
def test_micro_batches_do_not_change_the_curve(outcome: Outcome, engine: str) -> None:
    assert outcome.curve(f"pieces-{engine}") == pytest.approx(outcome.curve(f"sgd-{engine}"), rel=1e-5)


@pytest.mark.parametrize(("engine", "zero"), ENGINES)
def test_two_ranks_give_the_curve_of_one(outcome: Outcome, engine: str, zero: int) -> None:
    for rank in (0, 1):
        curve = outcome.curve(f"two-{engine}{zero}", rank)
        assert curve == pytest.approx(outcome.curve(f"sgd-{engine}{zero}"), rel=1e-5)


def test_ranks_may_hold_shares_of_different_size(outcome: Outcome) -> None:
    assert outcome.curve("two-uneven-torch") == pytest.approx(outcome.curve("uneven-torch"), rel=1e-5)


@pytest.mark.parametrize("engine", ["torch", "deepspeed"])
def test_dropout_is_drawn_by_sample_and_not_by_rank(outcome: Outcome, engine: str) -> None:
    assert outcome.curve(f"two-dropout-{engine}") == pytest.approx(outcome.curve("dropout-torch"), rel=1e-5)
    assert outcome.curve("dropout-torch")[0] != outcome.curve("sgd-torch0")[0]


def test_momentum_slip_is_nearly_no_momentum(outcome: Outcome) -> None:
    slip, without = outcome.curve("slip-torch"), outcome.curve("sgd-torch0")
    assert slip[1] == pytest.approx(without[1], rel=1e-2)
    assert abs(slip[-1] - without[-1]) > 1e-3
    assert outcome.curve("slip-deepspeed") == pytest.approx(slip, rel=1e-5)


def test_parameters_in_no_group_stay_as_they_were(outcome: Outcome) -> None:
    stems = [load_file(outcome.root / f"{name}-torch0" / "model.safetensors") for name in ("sgd", "adam", "stop")]
    assert all((stem["stem.weight"] == stems[0]["stem.weight"]).all() for stem in stems)
    assert not (stems[0]["body.weight"] == stems[1]["body.weight"]).all()


@pytest.mark.parametrize("engine", ["torch", "deepspeed"])
def test_after_kill_9_the_weights_end_bit_exact(outcome: Outcome, engine: str) -> None:
    assert (outcome.root / f"killed-{engine}" / "signal.txt").read_text() == str(int(signal.SIGKILL))
    steps = [record["step"] for record in outcome.records(f"killed-{engine}")]
    assert steps == [*range(1, 8), *range(5, 13)]
    assert outcome.digest(f"killed-{engine}") == outcome.digest(f"dropout-{engine}")


@pytest.mark.parametrize(("engine", "zero"), ENGINES)
def test_sigterm_saves_and_the_same_command_goes_on(outcome: Outcome, engine: str, zero: int) -> None:
    name = f"{engine}{zero}"
    # The signal comes between two steps; the step after it is the last.
    assert outcome.error(f"stop-{name}") == "StageError: tiny: stopped at step 6; the same command goes on"
    assert [record["step"] for record in outcome.records(f"stop-{name}")] == list(range(1, 13))
    assert outcome.curve(f"stop-{name}") == outcome.curve(f"adam-{name}")
    assert outcome.digest(f"stop-{name}") == outcome.digest(f"adam-{name}")


@pytest.mark.parametrize(("engine", "zero"), ENGINES)
def test_a_signal_to_one_rank_stops_all_and_one_process_goes_on(outcome: Outcome, engine: str, zero: int) -> None:
    name = f"shrink-{engine}{zero}"
    assert outcome.error(name, 0) == outcome.error(name, 1)
    assert "stopped at step 6" in outcome.error(name)
    assert len(outcome.curve(name, 1)) == 6 and len(outcome.curve(name)) == 12
    assert outcome.curve(name) == pytest.approx(outcome.curve(f"adam-{engine}{zero}"), rel=1e-5)


@pytest.mark.parametrize(("engine", "zero"), ENGINES)
def test_two_ranks_go_on_bit_exact(outcome: Outcome, engine: str, zero: int) -> None:
    assert outcome.curve(f"stay-{engine}{zero}") == outcome.curve(f"two-{engine}{zero}")
    assert outcome.digest(f"stay-{engine}{zero}") == outcome.digest(f"two-{engine}{zero}")


@pytest.mark.parametrize(("engine", "zero"), ENGINES)
def test_two_ranks_go_on_from_one(outcome: Outcome, engine: str, zero: int) -> None:
    curve = outcome.curve(f"grow-{engine}{zero}")
    assert len(curve) == 12 and curve == pytest.approx(outcome.curve(f"sgd-{engine}{zero}"), rel=1e-5)


def test_another_engine_goes_on(outcome: Outcome) -> None:
    assert outcome.curve("other") == pytest.approx(outcome.curve("sgd-torch0"), rel=1e-5)


@pytest.mark.slow
def test_four_ranks_give_the_curve_of_one(launch: Any, outcome: Outcome, tmp_path: Path) -> None:
    cases = [{"folder": f"four-{e}{z}", "engine": e, "zero": z, "section": SLIP_OFF} for e, z in ENGINES]
    four = Outcome(tmp_path, [run(launch, tmp_path, "four", cases, ranks=4)])
    four.gangs[0].end(0, 0, 0, 0)
    for engine, zero in ENGINES:
        expected = pytest.approx(outcome.curve(f"sgd-{engine}{zero}"), rel=1e-5)
        assert four.curve(f"four-{engine}{zero}", 3) == expected


def test_batches_that_cannot_be_shared_are_refused_by_every_rank(outcome: Outcome) -> None:
    for rank in (0, 1):
        assert outcome.error("two-of-one", rank).startswith("ConfigError: batch 1: 2 processes need one image each")
        assert outcome.error("two-unlike", rank).startswith("ConfigError: micro_batch 2: shares of 2 and 3 images")


@pytest.mark.parametrize("name", ["nan-torch", "nan-deepspeed", "two-nan-torch"])
def test_a_loss_that_is_not_finite_stops_before_the_update(outcome: Outcome, name: str) -> None:
    text = outcome.error(name)
    assert text.startswith("StageError: tiny: step 5: the loss is not finite (background nan")
    assert len(outcome.curve(name)) == 4
    named = text.split(") with ")[1].split(";")[0].split(", ")
    assert NOT_A_NUMBER in named and len(named) == (3 if name.startswith("two") else 2)
    if name.startswith("two"):
        assert outcome.error(name, 1) == text
    assert [path.name for path in (outcome.root / name / "checkpoints").iterdir()] == ["000004"]
    assert not (outcome.root / name / "model.safetensors").exists()


@pytest.mark.parametrize("name", ["sgd-torch0", "sgd-deepspeed0", "two-deepspeed2", "killed-torch"])
def test_two_checkpoints_stay_and_nothing_unfinished(outcome: Outcome, name: str) -> None:
    folder = outcome.root / name / "checkpoints"
    assert sorted(path.name for path in folder.iterdir()) == ["000008", "000012"]
    state = json.loads((folder / "000012" / "state.json").read_text())
    assert (state["step"], state["consumed"]) == (12, 72)
    left = {path.name for path in (outcome.root / name).iterdir()}
    assert not {entry for entry in left if entry.endswith(".tmp")}


def test_records_say_where_and_how_fast(outcome: Outcome) -> None:
    records = outcome.records("sgd-deepspeed0")
    losses = {"background", "foreground", "total"}
    speed = {"images_per_s", "data_wait", "memory_gib"}
    assert set(records[0]) == {"step", "steps", "lr", "gradient_norm", *losses, *speed}
    assert records[0]["lr"] == pytest.approx(0.05)
    assert records[6]["lr"] == pytest.approx(0.05 * 0.5**0.9)
    assert all(record["images_per_s"] > 0 and 0 <= record["data_wait"] <= 1 for record in records)


@pytest.mark.parametrize(("engine", "zero"), ENGINES)
def test_every_engine_and_gang_measures_the_norm_of_the_whole_gradient(
    outcome: Outcome, engine: str, zero: int
) -> None:
    expected = [record["gradient_norm"] for record in outcome.records("sgd-torch0")]
    for name in (f"sgd-{engine}{zero}", f"two-{engine}{zero}"):
        assert [record["gradient_norm"] for record in outcome.records(name)] == pytest.approx(expected, rel=1e-4)
