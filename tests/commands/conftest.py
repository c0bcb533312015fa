"""A small run that really ran, and what a command says in one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from amn_dist.config import Config
from amn_dist.runs.pipeline import Pipeline
from amn_dist.runs.run import Run
from data_shards.synthetic import pack_synthetic
from tests.tiny import IRN


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of method irn up to its walk, over four drawn scenes of two classes in `train` beside it."""
    root = tmp_path_factory.mktemp("finished")
    pack_synthetic(root / "train", images=4, seed=3, classes=2, size=(48, 64), shard_size=2)
    line = Pipeline(Config.model_validate(IRN), Run(root / "run"), root, console=Console(quiet=True))
    line.execute(until="walk")
    return root / "run"


@pytest.fixture
def mistake(amn: Callable[..., Any]) -> Callable[..., str]:
    """The one line that a command answers a mistake with."""

    def told(*arguments: object, code: int = 2) -> str:
        done = amn(*arguments)
        assert done.code == code, done
        assert "Traceback" not in done.err and len(done.err.splitlines()) == 1 and done.err.startswith("error: "), (
            done.err
        )
        assert "--debug shows where" not in done.err, done.err
        return done.err

    return told
