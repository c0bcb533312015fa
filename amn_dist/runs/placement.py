"""Whether this machine, or the cluster that works for it, has what the settings of a run ask for."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import torch

from amn_dist.caches import may_write, socket_folder, temporary_folder
from amn_dist.config import Config
from amn_dist.errors import PLACE, ConfigError, printable
from amn_dist.farms.farm import Farm
from amn_dist.loaders.decode import decoding_device
from amn_dist.methods import Stage
from amn_dist.ops.devices import compute_device, has_gpu
from amn_dist.runs.findings import Findings, refused
from amn_dist.runs.machine import is_installed
from amn_dist.storage.paths import AnyPath
from amn_dist.storage.scratch import SCRATCH, scratch_root
from amn_dist.training.launchers import with_processes


def check_places(config: Config, folder: AnyPath, address: str | None) -> Findings:
    """Folders that cannot be written: the run's, those of sockets and of temporary files."""
    yield from refused(temporary_folder)
    if address is None and (config.farm.name == "ray" or with_processes(config.engine).processes > 1):
        yield from refused(socket_folder)
    if isinstance(folder, Path):
        yield from refused(lambda: _check_folder(folder))
    else:
        yield from refused(_check_scratch)


def check_devices(config: Config, stages: Sequence[Stage], farm: Farm | None, address: str | None) -> Findings:
    """Devices, processes and libraries that are asked for and not there.

    stages: those that are to be run. farm: workers lent to the run, or None. address: of a Ray cluster to work in.
    """
    yield from refused(lambda: _check_crf(config, stages, farm, address))
    engine = with_processes(config.engine)
    trains_here = engine.processes == 1 or engine.launcher == "torchrun"
    fits = any(stage.verb == "fit" for stage in stages)
    if fits and trains_here:
        yield from refused(lambda: check_training_device(config))
    if fits and "RANK" not in os.environ and (address is None or trains_here):
        yield from _check_processes(config)
    if farm is None and address is None and any(stage.verb == "map" for stage in stages):
        yield from refused(lambda: _check_pools(config))
    yield from _check_libraries(config, stages)


def check_training_device(config: Config) -> None:
    """Raise ConfigError when a training process here would lack a device that is asked for."""
    device = compute_device()
    if config.engine.device == "gpu" and device != "cuda":
        raise ConfigError(
            "engine.device gpu: found no GPU that torch can use, and this process would train on the CPU; look at its "
            "driver (amn doctor), let a cluster's nodes train (--address, engine.processes), or set engine.device=auto"
        )
    decoding_device(config.loader, device)


def _check_folder(folder: Path) -> None:
    if os.path.exists(folder) and not os.path.isdir(folder):
        raise ConfigError(
            f"{printable(folder, PLACE)}: found a file, expected a folder for the run; choose another --run"
        )
    if not may_write(str(folder.absolute())):
        raise ConfigError(
            f"{printable(folder, PLACE)}: found a place that cannot be written, expected one for the run; choose "
            "another --run"
        )


def _check_scratch() -> None:
    root = scratch_root().absolute()
    if not may_write(str(root)):
        raise ConfigError(
            f"{printable(root, PLACE)}: found a place that cannot be written, expected a local folder for Fits of a "
            f"run behind a URL; set {SCRATCH}"
        )


def _check_crf(config: Config, stages: Sequence[Stage], farm: Farm | None, address: str | None) -> None:
    asking = [f"{stage.name}.crf" for stage in stages if _crf(config, stage) == "gpu"]
    if asking and not _farm_has_gpu(config, farm, address):
        where = f"the Ray cluster at {address}" if address else "this machine"
        raise ConfigError(
            f"{', '.join(asking)}: found gpu, but {where} has none that torch can use; take auto or cpu, "
            "or name a cluster that has one with --address"
        )


def _crf(config: Config, stage: Stage) -> str | None:
    return getattr(getattr(config, stage.name, None), "crf", None)


def _farm_has_gpu(config: Config, farm: Farm | None, address: str | None) -> bool:
    if farm is not None:
        return farm.accelerated
    if config.farm.name == "local":
        return has_gpu()
    from amn_dist.farms.ray.farm import cluster_has_gpu

    return cluster_has_gpu(config.farm, address)


def _check_processes(config: Config) -> Findings:
    """More training processes than this machine, alone, has devices or cores for."""
    engine, gpus, cores = with_processes(config.engine), torch.cuda.device_count(), len(os.sched_getaffinity(0))
    if has_gpu() and engine.processes > gpus:
        shortage = f"found {engine.processes}, but this machine has {gpus} GPU(s)"
        if engine.launcher == "torchrun":
            yield ConfigError(f"engine.processes: {shortage}, expected one for each process; take {gpus}, or auto")
        elif engine.min_processes > gpus:
            yield ConfigError(f"engine.min_processes: {engine.min_processes}, engine.processes: {shortage}; lower both")
        else:
            yield f"engine.processes: {shortage}; {gpus} will train, after waiting {engine.rejoin_s:g} s for others"
    elif not has_gpu() and engine.processes > max(cores, 1):
        yield f"engine.processes: found {engine.processes}, this machine has {cores} core(s), which they will share"


def _check_pools(config: Config) -> None:
    """Raise StageError or ConfigError for pools of workers that the cores of this machine do not suffice for."""
    if config.farm.name != "ray" or config.farm.pools == "one" or (config.farm.pools == "auto" and not has_gpu()):
        return
    if is_installed("ray"):
        from amn_dist.farms.ray.farm import local_cores, plan_pools

        plan_pools(config.farm, {"CPU": local_cores(config.farm), "GPU": torch.cuda.device_count()})


def _check_libraries(config: Config, stages: Sequence[Stage]) -> Findings:
    """Libraries that are asked for by name and not installed."""
    fits, engine = any(stage.verb == "fit" for stage in stages), with_processes(config.engine)
    asked = {
        ("farm.name", "ray", "ray"): config.farm.name == "ray",
        ("engine.launcher", "ray", "ray"): fits and engine.processes > 1 and engine.launcher == "ray",
        ("engine.name", "deepspeed", "deepspeed"): fits and engine.name == "deepspeed",
        ("loader.name", "dali", "nvidia.dali"): config.loader.name == "dali"
        and any(stage.verb != "score" for stage in stages),
    }
    asked |= {
        (f"{stage.name}.crf", "pydensecrf", "pydensecrf"): _crf(config, stage) == "pydensecrf" for stage in stages
    }
    for (key, name, library), is_asked in asked.items():
        if is_asked and not is_installed(library):
            yield ConfigError(
                f"{key}: found {name}, but {library} is not installed; run launch/install.sh, or set another"
            )
