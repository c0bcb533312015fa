"""Predictions in one piece and in two, and whom a CRF is given to."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch

from amn_dist.config import Config
from amn_dist.errors import ConfigError
from amn_dist.farms.local import LocalFarm
from amn_dist.interfaces import Context, crf_needs, parts_of
from amn_dist.methods import STAGES, stages
from amn_dist.models.deeplab import segment_network
from amn_dist.records import Sample
from amn_dist.runs.findings import refuse
from amn_dist.runs.placement import check_devices
from amn_dist.stages.predict import LabelsMap, LogitsMap, PredictMap
from tests.tiny import SMALL


def config(**sections: Any) -> Config:
    return Config.model_validate({"name": "x", "segment": {"backbone": SMALL}, **sections})


def samples() -> list[Sample]:
    random = np.random.default_rng(0)
    sizes = [(45, 70), (33, 40), (45, 70), (8, 8)]
    return [
        Sample(str(n), n, random.integers(0, 256, (*size, 3), dtype=np.uint8), np.zeros(4, np.uint8))
        for n, size in enumerate(sizes)
    ]


@pytest.mark.parametrize("pixels", [1, 45 * 70 * 4])
@pytest.mark.parametrize("crf", ["auto", "off"])
def test_two_parts_predict_what_one_map_and_one_photograph_do(crf: str, pixels: int) -> None:
    torch.manual_seed(0)
    settings = config(predict={"crf": crf}, infer={"batch_pixels": pixels})
    network = segment_network(settings, 5).eval()
    whole = PredictMap(settings, 5, "")
    expected = [sample.made["predict"] for sample in whole.run(copy.deepcopy(network), iter(samples()))]
    passed = LabelsMap(settings.predict).run(None, LogitsMap(settings, 5, "").run(network, iter(samples())))
    for sample, fields in zip(passed, expected, strict=True):
        assert fields.keys() == sample.made["predict"].keys() == set(whole.fields) and sample.logits is None
        for field, labels in fields.items():
            assert np.array_equal(labels, sample.made["predict"][field])
            if pixels == 1:
                assert np.array_equal(labels, whole.labels(network, sample.image)[field])


@pytest.mark.parametrize(
    ("crf", "accelerated", "names"),
    [
        ("auto", False, ["predict_logits", "predict"]),
        ("cpu", True, ["predict_logits", "predict"]),
        ("pydensecrf", True, ["predict_logits", "predict"]),
        ("auto", True, ["predict"]),
        ("gpu", True, ["predict"]),
        ("off", False, ["predict"]),
    ],
)
def test_a_crf_that_is_not_done_beside_the_network_is_a_part_for_cores(
    crf: str, accelerated: bool, names: list[str]
) -> None:
    parts = parts_of(PredictMap(config(predict={"crf": crf}), 5, "", accelerated))
    assert [part.name for part in parts] == names and parts[0].needs == "network"
    assert len(parts) == 1 or (parts[1].needs == "cpu" and parts[1].fields == ("mask.png", "raw.png"))


@pytest.mark.parametrize("stage", ["cam_seed", "amn_seed", "icd_seed", "refine_seed"])
@pytest.mark.parametrize("accelerated", [False, True])
def test_seeds_are_made_beside_the_network_where_there_is_a_gpu(stage: str, accelerated: bool) -> None:
    (factory,) = (one.map for one in STAGES if one.name == stage)
    for crf in ("auto", "cpu", "pydensecrf"):
        step = factory(Context(config(**{stage: {"crf": crf}}), ("background", "cat"), accelerated=accelerated))
        assert step.needs == crf_needs(crf, accelerated) == ("network" if crf == "auto" and accelerated else "cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_nobody_has_is_refused_with_the_keys() -> None:
    asking = config(method="irn", cam_seed={"crf": "gpu"}, predict={"crf": "gpu"}, farm={"name": "local"})
    with pytest.raises(ConfigError, match=r"cam_seed\.crf, predict\.crf: found gpu, but this machine has none"):
        refuse(check_devices(asking, stages(asking), None, None))
    with pytest.raises(ConfigError, match=r"^predict\.crf: "):
        refuse(check_devices(asking, [one for one in stages(asking) if one.name != "cam_seed"], LocalFarm(), None))
    refuse(check_devices(config(), stages(config()), None, None))


def test_a_stage_that_the_method_does_not_have_asks_for_nothing() -> None:
    plain = config(method="irn", icd_seed={"crf": "gpu"}, farm={"name": "local"})
    refuse(check_devices(plain, stages(plain), None, None))
