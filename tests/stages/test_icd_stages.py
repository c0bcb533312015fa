"""ICD as stages: what is learned at which rate, what an image yields, how seeds are decoded, who reads whom."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from amn_dist.config import Config, IcdSeed, Superpixel
from amn_dist.errors import ConfigError
from amn_dist.methods import scored, stages
from amn_dist.models.icd import IcdNet
from amn_dist.models.icd_losses import top_down_part
from amn_dist.ops.region_means import refine_scores
from amn_dist.ops.signed import signed_labels
from amn_dist.records import Batch, Evidence, Sample
from amn_dist.stages.icd import IcdFit, IcdMap, evidence_of, icd_colour, icd_network, image_icd, logits_icd
from amn_dist.stages.icd_seed import IcdSeedMap
from amn_dist.stages.superpixel import SuperpixelMap
from tests.tiny import SMALL

CLASSES = 5
SECTION = {"backbone": SMALL, "crop": 49, "width": 16, "steps": 1}
IMAGE = np.random.default_rng(0).integers(0, 256, (45, 70, 3), dtype=np.uint8)
TAGS = np.array([0, 1, 0, 1])


def config(**section: object) -> Config:
    return Config.model_validate({"name": "x", "method": "icd", "discriminate": {**SECTION, **section}})


def batch(count: int = 6) -> Batch:
    random = torch.Generator().manual_seed(1)
    regions = torch.randint(0, 30, (count, 7, 7), generator=random).repeat_interleave(7, 1).repeat_interleave(7, 2)
    regions[1, :, :24] = -1
    return Batch(
        keys=tuple(f"k{i}" for i in range(count)),
        ordinals=tuple(range(count)),
        image=torch.randn(count, 3, 49, 49, generator=random),
        tags=functional.one_hot(torch.arange(count) % (CLASSES - 1), CLASSES - 1).float(),
        label=regions.int(),
    )


@pytest.fixture(scope="module")
def model() -> IcdNet:
    torch.manual_seed(0)
    network = icd_network(config(), CLASSES)
    network(*[getattr(batch(), name) for name in ("image", "tags", "label")])
    network.end_step()
    # Random signed logits lie on one side; these lie on both.
    network.top_down.classifier.weight.data.mul_(30)
    return network.eval()


def test_every_trained_parameter_is_in_one_group_and_gets_a_gradient() -> None:
    fit = IcdFit(config(warmup=0), CLASSES)
    network = fit.network().train()
    grouped = [id(p) for group in fit.parameter_groups(network) for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in network.parameters())
    found = fit.losses(network, batch(), fit.normalisers(batch()))
    found["total"].backward()
    assert not [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    total = found["classification"] + found["bottom_up"] + found["top_down"]
    torch.testing.assert_close(found["total"], total)


def test_rates_and_decay_are_the_published_ones() -> None:
    fit = IcdFit(config(lr_hidden=2e-3), CLASSES)
    network = fit.network()
    names = {id(p): name for name, p in network.named_parameters()}
    found = {
        names[id(p)]: (group["lr"], group["weight_decay"])
        for group in fit.parameter_groups(network)
        for p in group["params"]
    }
    for name, rates in {
        "cam.classifier.weight": (1e-2, 5e-4),
        "cam.classifier.bias": (1e-2, 0.0),
        "top_down.classifier.weight": (1e-2, 5e-4),
        "top_down.fc6.weight": (2e-3, 5e-4),
        "directions.weight": (2e-3, 5e-4),
        "norm.bias": (2e-3, 0.0),
        "backbone.features.block5.branch.0.weight": (1e-3, 5e-4),
    }.items():
        assert found[name] == rates, name


def test_targets_without_refinement_are_the_scores_of_cells() -> None:
    found = {}
    for refine in (True, False):
        torch.manual_seed(0)
        fit = IcdFit(config(cam_head="linear", warmup=0, refine=refine), CLASSES)
        network, whole = fit.network().train(), batch()
        found[refine] = fit.losses(network, whole, fit.normalisers(whole))["top_down"]
        seen = network(whole.image, whole.tags, whole.label)
        target = seen.score.detach()
        target = refine_scores(target, whole.tags, whole.label) if refine else target
        expected = top_down_part(seen.logits, target, whole.tags) / len(whole)
        torch.testing.assert_close(found[refine], expected)
    assert not torch.isclose(found[True], found[False])


def test_maps_come_of_the_head_asked_for(model: IcdNet) -> None:
    found = {}
    for head in ("top_down", "bottom_up"):
        settings = Config.model_validate({**config().model_dump(), "icd_map": {"pad": None, "head": head}})
        (sample,) = IcdMap(settings, CLASSES, "").run(model, iter([Sample("a", 0, IMAGE, TAGS)]))
        found[head] = sample.made["icd_map"]["activation.f16"]
        maps = image_icd(model, IMAGE, TAGS, pad=None, head=head, colour=icd_colour(settings))
        np.testing.assert_array_equal(found[head], evidence_of(*maps).coarse.astype(np.float16))
    assert not np.allclose(found["top_down"], found["bottom_up"])


def test_pieces_see_the_same_classifier() -> None:
    """Statistics of features are those of a piece; what does not depend on them adds up."""
    torch.manual_seed(0)
    fit = IcdFit(config(cam_head="linear"), CLASSES)
    network, whole = fit.network().train(), batch()
    pooled = fit.normalisers(whole)
    assert pooled.tolist() == [6]
    expected = fit.losses(network, whole, pooled)["classification"]
    pieces = [fit.losses(network, piece, pooled)["classification"] for piece in whole.split(2)]
    torch.testing.assert_close(torch.stack(pieces).sum(), expected)


def test_crops_are_the_published_ones() -> None:
    rule = IcdFit(Config(name="x"), 21).rule
    assert (rule.size, rule.scales, rule.place, rule.label) == (321, (0.5, 0.75, 1.0, 1.25, 1.5), "corner", "regions")
    assert (rule.rounding, rule.interpolation) == ("half_up", "linear")


def test_maps_have_the_sizes_of_grid_and_image(model: IcdNet) -> None:
    classes, signed, cam = image_icd(model, IMAGE, TAGS, pad=None)
    assert classes.tolist() == [2, 4] and signed.shape == cam.shape == (2, 45, 70)
    assert signed.min() < 0 < signed.max()
    evidence = evidence_of(classes, signed, cam)
    assert evidence.coarse.shape == (2, 12, 18) and evidence.fine.shape == (2, 45, 70)
    assert evidence.fine.min() >= 0 and evidence.fine.max() == 1
    assert evidence.decided is not None and evidence.decided.dtype == np.uint8
    assert np.array_equal(evidence.decided, signed_labels(signed, cam, classes))
    assert (evidence.fine.argmax(0)[evidence.decided == 4] == 1).all() and (evidence.decided == 4).any()


@pytest.mark.parametrize("size", [(16, 16), (17, 33), (45, 70)])
def test_an_image_without_tags_has_no_maps(model: IcdNet, size: tuple[int, int]) -> None:
    maps = image_icd(model, IMAGE[: size[0], : size[1]], np.zeros(4), pad=None)
    evidence = evidence_of(*maps)
    assert evidence.coarse.shape[0] == 0 and evidence.fine.shape == (0, *size)
    assert evidence.decided is not None and not evidence.decided.any()


def test_one_scale_is_the_network_on_the_padded_image(model: IcdNet) -> None:
    _, signed, _ = image_icd(model, IMAGE, TAGS, pad=97, colour="centred")
    canvas = np.full((97, 97, 3), 127, np.uint8)
    canvas[:45, :70] = IMAGE
    x = torch.from_numpy(canvas).permute(2, 0, 1)[None].float() - 127
    with torch.no_grad():
        logits = model.maps(x)[1][:, [1, 3]]
    assert logits.shape[-2:] == (13, 13)
    expected = functional.interpolate(logits, size=(97, 97), mode="bilinear")[0, :, :45, :70]
    np.testing.assert_allclose(signed, expected, atol=1e-4 * float(expected.abs().max()))


def test_scales_and_mirror_images_are_averaged_before_anything_is_decided(model: IcdNet) -> None:
    one, half, both = (image_icd(model, IMAGE, TAGS, scales=s, pad=None) for s in ((1.0,), (0.5,), (1.0, 0.5)))
    for number in (1, 2):
        np.testing.assert_allclose(both[number], (one[number] + half[number]) / 2, atol=1e-5)
    plain = image_icd(model, IMAGE, TAGS, pad=None)[1]
    mirror = image_icd(model, np.ascontiguousarray(IMAGE[:, ::-1]), TAGS, pad=None)[1][..., ::-1]
    found = image_icd(model, IMAGE, TAGS, flip=True, pad=None)[1]
    np.testing.assert_allclose(found, (plain + mirror) / 2, atol=1e-4 * np.abs(plain).max())


def test_map_and_seed_stream(model: IcdNet) -> None:
    sample = Sample("a", 0, IMAGE, TAGS)
    settings = Config.model_validate({**config().model_dump(), "icd_map": {"pad": None}})
    (sample,) = IcdMap(settings, CLASSES, "").run(model, iter([sample]))
    assert sample.made["icd_map"]["activation.f16"].dtype == np.float16
    seeds = {}
    for rule in ("signed", "threshold"):
        for crf in ("auto", "off"):
            section = IcdSeed.model_validate({"rule": rule, "crf": crf})
            (sample,) = IcdSeedMap(section, CLASSES).run(None, iter([sample]))
            seeds[rule, crf] = sample.made["icd_seed"]["seed.png"]
    assert sample.evidence is not None
    assert np.array_equal(seeds["signed", "off"], sample.evidence.decided)
    assert 255 not in seeds["signed", "auto"]
    strongest = sample.evidence.fine.max(0)
    found = seeds["threshold", "off"]
    assert ((found == 0) == (strongest <= 0.05)).all() and set(np.unique(found)) <= {0, 2, 4, 255}
    assert not np.array_equal(seeds["threshold", "auto"], found)


def test_evidence_of_a_device_is_that_of_the_cpu(model: IcdNet) -> None:
    settings = Config.model_validate({**config().model_dump(), "icd_map": {"pad": None}})
    samples = [Sample("a", 0, IMAGE, TAGS), Sample("b", 1, IMAGE, np.zeros_like(TAGS))]
    (plain, _) = IcdMap(settings, CLASSES, "").run(model, iter(samples))
    assert plain.evidence is not None and plain.evidence.decided is not None
    expected, labels, made = plain.evidence, plain.evidence.decided, dict(plain.made["icd_map"])
    for sample in samples:
        logits = logits_icd(model, [IMAGE], [sample.tags], pad=None, colour=icd_colour(settings))
        IcdMap(settings, CLASSES, "")._decide([sample], logits, [(np.flatnonzero(sample.tags) + 1).astype(np.uint8)])
    evidence = samples[0].evidence
    assert evidence is not None and evidence is not expected
    assert evidence.decided is not None and (evidence.decided == labels).mean() > 0.999
    np.testing.assert_allclose(evidence.fine, expected.fine, atol=1e-5)
    np.testing.assert_allclose(evidence.coarse, made["activation.f16"], atol=1e-3)
    assert samples[1].evidence is not None and not len(samples[1].evidence.fine)


def test_signed_seed_without_a_decision_is_our_mistake() -> None:
    sample = Sample("a", 0, IMAGE, TAGS, evidence=Evidence(*(np.zeros((1, 2, 2)),) * 3))
    with pytest.raises(AssertionError, match="decides"):
        list(IcdSeedMap(IcdSeed(), CLASSES).run(None, iter([sample])))


def test_superpixels_of_a_sample() -> None:
    (sample,) = SuperpixelMap(Superpixel(min_size=20)).run(None, iter([Sample("a", 0, IMAGE, TAGS)]))
    regions = sample.made["superpixel"]["superpixel.u16.png"]
    assert regions.dtype == np.uint16 and regions.shape == (45, 70) and len(np.unique(regions)) > 1


ICD = ["superpixel", "discriminate", "icd_map", "icd_seed"]
TAIL = ["segment", "predict", "score"]
ORDERS = {
    ("icd", "walk"): [*ICD, "irn", "walk", *TAIL],
    ("icd", "seed"): [*ICD, *TAIL],
    ("icd_amn", "walk"): [*ICD, "amn", "amn_map", "amn_seed", "irn", "walk", *TAIL],
    ("amn", "seed"): ["classify", "cam", "cam_seed", "amn", "amn_map", "amn_seed", *TAIL],
}


@pytest.mark.parametrize(("method", "mask"), ORDERS)
def test_methods_are_graphs_in_order(method: str, mask: str) -> None:
    setting = Config.model_validate({"name": "x", "method": method, "pseudo_mask": mask})
    found = stages(setting)
    assert [stage.name for stage in found] == ORDERS[method, mask]
    for position, stage in enumerate(found):
        assert set(stage.depends_on) <= {earlier.name for earlier in found[:position]}
    by_name = {stage.name: stage for stage in found}
    last = "walk" if mask == "walk" else next(n for n in reversed(ORDERS[method, mask]) if n.endswith("_seed"))
    assert by_name["segment"].depends_on == (last,)
    assert {artefact.name for _, artefact in scored(setting)} >= {n for n in by_name if n.endswith(("_map", "_seed"))}
    if method == "icd_amn":
        assert by_name["amn"].depends_on == ("icd_seed",) and by_name["amn_map"].depends_on == ("amn", "icd_seed")
        assert by_name["amn_map"].reads == {"seed": "icd_seed"}


def test_a_seed_whose_thresholds_cross_is_refused() -> None:
    with pytest.raises(ValueError, match=r"background 0\.4 lies above foreground 0\.3"):
        IcdSeed(background=0.4)


def test_a_stride_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ConfigError, match="stride 16"):
        icd_network(config(backbone={"name": "vgg16_deeplab", "stride": 16, "weights": None}), CLASSES)
