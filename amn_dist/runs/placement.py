"""Whether the workers of a run can do what its settings ask for, before anything is begun."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from amn_dist.config import Config
from amn_dist.errors import ConfigError
from amn_dist.farms.farm import Farm
from amn_dist.methods import Stage


def check_devices(config: Config, stages: Iterable[Stage], farm: Farm | None, address: str | None) -> None:
    """Raise ConfigError naming the settings that ask for a GPU where no worker has one.

    stages: those that are to be run. farm: workers lent to the run, or None. address: of a Ray cluster to work in.
    """
    asking = [f"{stage.name}.crf" for stage in stages if _asks_for_gpu(config, stage)]
    if asking and not _has_gpu(config, farm, address):
        where = f"the Ray cluster at {address}" if address else "this machine"
        raise ConfigError(
            f"{', '.join(asking)}: found gpu, but {where} has none that torch can use; take auto or cpu, "
            "or name a cluster that has one with --address"
        )


def _asks_for_gpu(config: Config, stage: Stage) -> bool:
    return getattr(getattr(config, stage.name, None), "crf", None) == "gpu"


def _has_gpu(config: Config, farm: Farm | None, address: str | None) -> bool:
    if farm is not None:
        return farm.accelerated
    if config.farm.name == "local":
        return torch.cuda.is_available()
    from amn_dist.farms.ray.farm import cluster_has_gpu

    return cluster_has_gpu(config.farm, address)
