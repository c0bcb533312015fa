"""When a gang is started again, and how it is asked to stop."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from amn_dist.errors import ConfigError, PeerLost, ShardError, StageError
from amn_dist.training.launchers import FAULT, leaving_faults, stopping_by_file, train_together
from amn_dist.training.loop import STOP


def breaking(folder: Path, *deeds: Callable[[], None] | None) -> tuple[Callable[[], None], list[int]]:
    """A gang that breaks once a deed, then ends well; and the count of its starts."""
    starts: list[int] = []

    def start() -> None:
        starts.append(len(starts))
        if len(starts) <= len(deeds):
            deed = deeds[len(starts) - 1]
            if deed is not None:
                deed()
            raise PeerLost("rank 1 is gone")

    return start, starts


def checkpointing(folder: Path, step: int) -> Callable[[], None]:
    def deed() -> None:
        made = folder / "checkpoints" / f"{step:06d}"
        made.mkdir(parents=True)
        (made / "state.json").write_text("{}")

    return deed


def test_a_gang_is_started_again_until_it_ends(tmp_path: Path) -> None:
    start, starts = breaking(tmp_path, None, checkpointing(tmp_path, 4))
    said: list[str] = []
    train_together(start, tmp_path, retries=2, tell=said.append)
    assert len(starts) == 3
    assert said[0] == "rank 1 is gone; started again from the beginning"
    assert said[1] == "rank 1 is gone; started again from 000004"


def test_a_gang_that_gets_nowhere_is_given_up(tmp_path: Path) -> None:
    start, starts = breaking(tmp_path, *[None] * 9)
    with pytest.raises(PeerLost, match="rank 1 is gone"):
        train_together(start, tmp_path, retries=2, tell=lambda text: None)
    assert len(starts) == 3


def test_progress_earns_new_retries(tmp_path: Path) -> None:
    start, starts = breaking(tmp_path, *[checkpointing(tmp_path, step) for step in range(1, 8)])
    train_together(start, tmp_path, retries=1, tell=lambda text: None)
    assert len(starts) == 8


@pytest.mark.parametrize("kind", [ConfigError, ShardError, StageError])
def test_a_members_own_error_is_raised_at_once(tmp_path: Path, kind: type[Exception]) -> None:
    def member() -> None:
        with pytest.raises(kind), leaving_faults(tmp_path):
            raise kind("sample a is not finite")

    start, starts = breaking(tmp_path, member, None)
    with pytest.raises(kind, match="rank 0: sample a is not finite"):
        train_together(start, tmp_path, retries=3, tell=lambda text: None)
    assert len(starts) == 1


@pytest.mark.parametrize(
    "text",
    ['{"kind": "OSError", "rank": 0, "text": "x"}', '{"kind": "StageError", "rank": "0", "text": "x"}', "{}",
     "[" * 100_000, '{"kind": "StageError", "rank": 0, "text": "x", "text": "y"}', "\xff"],
)  # fmt: skip
def test_a_fault_that_nobody_left_is_named(tmp_path: Path, text: str) -> None:
    def member() -> None:
        (tmp_path / FAULT).write_bytes(text.encode("latin1"))

    start, starts = breaking(tmp_path, member)
    with pytest.raises(StageError, match=rf"{FAULT}: .*; remove it, run again") as caught:
        train_together(start, tmp_path, retries=3, tell=lambda told: None)
    assert str(caught.value).isprintable() and len(starts) == 1


def test_lost_peers_are_no_fault_and_old_faults_do_not_count(tmp_path: Path) -> None:
    with pytest.raises(StageError), leaving_faults(tmp_path):
        raise StageError("of the run before")
    with pytest.raises(PeerLost), leaving_faults(tmp_path):
        raise PeerLost("gone")
    start, starts = breaking(tmp_path, None)
    train_together(start, tmp_path, retries=1, tell=lambda text: None)
    assert len(starts) == 2


def test_sigterm_becomes_a_file_and_the_handler_returns(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    (tmp_path / STOP).touch()
    with stopping_by_file(tmp_path):
        assert not (tmp_path / STOP).exists()
        os.kill(os.getpid(), signal.SIGTERM)
        assert (tmp_path / STOP).exists()
        assert signal.getsignal(signal.SIGTERM) is before
    assert not (tmp_path / STOP).exists()
