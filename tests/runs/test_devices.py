"""Which devices a run asks for, and what it says where they are not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from amn_dist.config import Config, EngineSection, Loader
from amn_dist.errors import ConfigError
from amn_dist.loaders.decode import FEW_THREADS, MOST_THREADS, decoding_device, image_threads, training_threads
from amn_dist.runs.pipeline import Pipeline
from amn_dist.runs.placement import check_training_device
from amn_dist.runs.run import Run
from amn_dist.training.launchers import with_processes


def loader(**settings: Any) -> Loader:
    return Loader.model_validate(settings)


def test_crops_are_decoded_where_it_was_asked_for() -> None:
    places = {
        (name, device, trains): decoding_device(loader(name=name, device=device), trains)
        for name in ("dali", "torchvision")
        for device in ("auto", "cpu")
        for trains in ("cpu", "cuda")
    }
    assert [key for key, place in places.items() if place == "gpu"] == [("dali", "auto", "cuda")]
    assert decoding_device(loader(device="gpu"), "cuda") == "gpu"
    with pytest.raises(ConfigError, match=r"loader\.device gpu: found no GPU .*set loader\.device=auto"):
        decoding_device(loader(device="gpu"), "cpu")


def test_torchvision_decodes_on_no_device() -> None:
    with pytest.raises(ValueError, match="device gpu: torchvision decodes on the CPU; expected name dali"):
        loader(name="torchvision", device="gpu")


def test_threads_follow_from_the_cores_beside_a_gpu_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(24)))
    assert training_threads(loader(), "cpu") == FEW_THREADS
    assert training_threads(loader(), "cuda") == MOST_THREADS
    assert training_threads(loader(threads=3), "cuda") == training_threads(loader(threads=3), "cpu") == 3
    for processes, threads in (("4", 6), ("24", FEW_THREADS)):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", processes)
        assert training_threads(loader(), "cuda") == threads


def test_a_map_beside_a_gpu_decodes_on_half_of_its_cores() -> None:
    threads = {1: FEW_THREADS, 4: 2, 6: 3, 16: 8, 32: MOST_THREADS, 96: MOST_THREADS}
    assert {cores: image_threads(loader(), cores) for cores in threads} == threads
    assert image_threads(loader(threads=5), 16) == 5


def test_processes_follow_from_the_gpus_where_they_are_to() -> None:
    for auto in ("auto", 0):
        section = EngineSection.model_validate({"processes": auto, "min_processes": 2})
        assert with_processes(section).processes == max(torch.cuda.device_count(), 1)
    assert with_processes(EngineSection(processes=3)).processes == 3
    for wrong in ("all", -1, None):
        with pytest.raises(ValueError, match="processes"):
            EngineSection.model_validate({"processes": wrong})


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
@pytest.mark.parametrize("section", ["engine", "loader"])
def test_a_gpu_that_is_asked_for_and_not_there_is_an_error(section: str, tmp_path: Path) -> None:
    check_training_device(Config(name="x"))
    asked = Config.model_validate({"name": "x", section: {"device": "gpu"}})
    said = rf"{section}\.device gpu: found no GPU that torch can use.*{section}\.device=auto"
    with pytest.raises(ConfigError, match=said):
        check_training_device(asked)
    with pytest.raises(ConfigError, match=said):  # before it looks for the data, which is not there
        Pipeline(asked, Run(tmp_path / "run"), tmp_path / "none").execute()
    assert not (tmp_path / "run" / "config.yaml").exists()
