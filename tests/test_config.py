"""Configurations: what is read is what was meant, and everything else is refused by name."""

import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from amn_dist.config import BackboneSection, Config, Discriminate, Irn, dump_config, load_config
from amn_dist.errors import ConfigError

CONFIGS = sorted((Path(__file__).resolve().parents[1] / "configs").glob("*.yaml"))


def written(folder: Path, text: str) -> Path:
    path = folder / "c.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_shipped_configs_load_and_survive_a_round_trip(path: Path, tmp_path: Path) -> None:
    config = load_config(path)
    assert load_config(written(tmp_path, dump_config(config))) == config


METHOD = (Path(__file__).resolve().parents[1] / "docs" / "method.md").read_text(encoding="utf-8")


def said(pattern: str) -> tuple[float, ...]:
    """The numbers a place of docs/method.md gives, which is where the settings come from."""
    found = re.search(re.sub(r"\s+", r"\\s+", pattern.replace("#", r"(\d*\.?\d+(?:e-?\d+)?)")), METHOD)
    assert found is not None, pattern
    return tuple(float(number) for number in found.groups())


def test_without_settings_an_experiment_is_as_the_method_is_published() -> None:
    config = Config(name="voc")
    seeds = (config.cam_seed, config.amn_seed)
    assert said(r"Thresholds #/# on CAM, #/# on AMN's maps") == tuple(
        value for seed in seeds for value in (seed.foreground, seed.background)
    )
    assert said(r"Scales #, #, #, #, each with its mirror image") == config.cam.scales == config.amn_map.scales
    assert said(r"to the power # \(plain IRN: #\) walks") == (config.walk.power, 1)
    assert said(r"T is A to the power # with") == (config.walk.beta,) and said(r"T\^#\.") == (config.walk.steps,)
    assert said(r"argmax over \[#, maps\] \(COCO #\)") == (config.walk.background, 0.22)
    assert said(r"on VOC the input is padded to #") == (config.walk.pad,)
    assert said(r"own class #, the rest # spread") == (1 - config.amn.smoothing, config.amn.smoothing)
    assert said(r"long side #\.\.#; AMN, IRN: factor #\.\.#") == (*config.classify.long_side, *config.amn.rescale)
    assert config.irn.rescale == config.amn.rescale
    assert said(r"crop #; a smaller side") == (config.classify.crop,) == (config.amn.crop,) == (config.irn.crop,)
    assert said(r"a = pair affinity of the sigmoid edge at R = #") == (config.irn.radius,)


def test_without_settings_the_last_network_is_deeplab_as_published() -> None:
    found = Config(name="voc").segment
    crop, batch, rate, weights, biases, momentum, decay, every, steps = said(
        r"Crop #, batch #, rate # \(head weights x#, head biases x# without decay\), momentum #, decay #, poly 0.9 in "
        r"steps of #, #,000 steps"
    )
    assert (found.crop, found.batch, found.lr, found.weight_decay) == (crop, batch, rate, decay)
    assert found.lr_head == pytest.approx(weights * rate) and biases == 2 * weights  # stages/segment.py doubles it
    assert (found.momentum, found.momentum_slip) == (momentum, False)
    assert (found.schedule, found.schedule_every, found.steps) == ("poly", every, 1000 * steps)
    assert said(r"Scales 1, #, # and their element-wise") == found.branches


def test_without_settings_icd_is_as_published() -> None:
    config = Config(name="voc", method="icd")
    found = config.discriminate
    assert said(r"Scale drawn from \{#, #, #, #, #\}") == found.scales
    assert said(r"at the top left of the crop of #") == (found.crop,)
    assert said(r"k = #, blur #, at least # pixels") == (
        config.superpixel.scale,
        config.superpixel.sigma,
        config.superpixel.min_size,
    )
    assert (found.backbone.name, found.backbone.stride, found.cam_head) == ("vgg16_deeplab", 8, "deep")
    assert said(r"1x1 convolution to # channels with ReLU and dropout") == (found.width,)


@pytest.mark.parametrize("name", ["coco14_amn", "coco14_icd_amn", "coco14_irn"])
def test_configurations_of_coco_say_what_the_method_says_of_coco(name: str) -> None:
    config = load_config(next(path for path in CONFIGS if path.stem == name))
    foreground, background, walk = said(r"Seeds #/# \(for CAM's uncertain: .*?\), walk background\n#, no padding")
    seed = config.icd_seed if config.method == "icd_amn" else config.cam_seed
    assert (seed.foreground, seed.background) == (foreground, background)
    assert (config.walk.background, config.walk.pad) == (walk, None)
    steps, rate = said(r"on COCO #,000 at rate #\)")
    assert (config.segment.steps, config.segment.lr) == (1000 * steps, rate)


def test_settings_override_the_file(tmp_path: Path) -> None:
    path = written(tmp_path, "name: a\nclassify: {epochs: 2}\n")
    config = load_config(path, ("classify.epochs=7", "cam.scales=[1.0, 2.0]", "data.val=null"))
    assert (config.classify.epochs, config.cam.scales, config.data.val) == (7, (1.0, 2.0), None)


def test_a_bare_off_is_a_word(tmp_path: Path) -> None:
    path = written(tmp_path, "name: a\nicd_seed: {crf: off}\n")
    assert load_config(path).icd_seed.crf == load_config(path, ("icd_seed.crf=off",)).icd_seed.crf == "off"
    assert load_config(written(tmp_path, dump_config(load_config(path)))).icd_seed.crf == "off"


def test_a_setting_changes_one_section_even_if_an_anchor_shares_it(tmp_path: Path) -> None:
    path = written(tmp_path, "name: a\nclassify: &fit {batch: 4}\namn: *fit\n")
    config = load_config(path, ("classify.batch=8",))
    assert (config.classify.batch, config.amn.batch) == (8, 4)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name: a\nclassify: {batchsize: 3}\n", ["classify.batchsize", "did you mean batch"]),
        ("name: a\nclassify: {epochs: many}\n", ["classify.epochs", "'many'", "integer"]),
        ("name: a\nclasify: {}\n", ["clasify", "did you mean classify"]),
        ("name: a\ncam_seed: {foreground: 0.1, background: 0.2}\n", ["cam_seed", "background 0.2", "foreground 0.1"]),
        ("name: ../a\n", ["name", "'../a'"]),
        ("method: amn\n", ["name is missing"]),
        ("name: [a\n", ["not plain YAML"]),
        ("- a\n", ["list", "sections"]),
        ("name: !!python/object/apply:os.system ['true']\n", ["not plain YAML"]),
        ("name: a\nname: b\n", ["line 2", "the key name twice"]),
        ("name: a\nclassify: {batch: 4, epochs: 2, batch: 8}\n", ["the key batch twice"]),
        ("name: a\nclassify: {epochs: true}\n", ["classify.epochs", "True", "integer"]),
        ("name: a\nclassify: {epochs: 2.0}\n", ["classify.epochs", "2.0", "integer"]),
        ("name: a\nclassify: {epochs: '2'}\n", ["classify.epochs", "'2'", "integer"]),
        ("name: a\nclassify: {crop: 0320}\n", ["classify.crop", "'0320'", "integer"]),
        ("name: a\nclassify: {lr: true}\n", ["classify.lr", "True", "number"]),
        ("name: a\nclassify: {lr: '0.1'}\n", ["classify.lr", "'0.1'", "number"]),
        ("name: a\nclassify: {lr: .inf}\n", ["the number .inf", "finite"]),
        ("name: a\nclassify: {lr: .nan}\n", ["the number .nan", "finite"]),
        ("name: a\nclassify: {momentum_slip: 1}\n", ["classify.momentum_slip", "found 1", "boolean"]),
        ("name: a\nseed: 99999999999999999999\n", ["99999999999999999999", "64 bits"]),
        ("name: a\nseed: -1\n", ["seed", "-1", "greater"]),
        ("name: a\nengine: {zero: true}\n", ["engine.zero", "True", "expected a whole number"]),
        ("name: a\nengine: {zero: 1.0}\n", ["engine.zero", "1.0", "expected a whole number"]),
        ("name: a\nengine: {zero: 3}\n", ["engine.zero", "3", "0, 1 or 2"]),
        ("name: a\nclassify: {backbone: {stride: 8.0}}\n", ["classify.backbone.stride", "expected a whole number"]),
        ("name: a\nengine: {timeout_s: 1.0e+30}\n", ["engine.timeout_s", "1e+30"]),
        ("name: a\nengine: {processes: 2, min_processes: 3}\n", ["engine", "min_processes 3 lies above processes 2"]),
        ("name: a\ncam: {scales: []}\n", ["cam.scales", "at least one"]),
        ("name: a\ncam: {scales: [1.0, 0]}\n", ["cam.scales.1", "found 0", "greater than 0"]),
        ("name: a\ncam: {scales: [1000.0]}\n", ["cam.scales.0", "1000.0"]),
        ("name: a\ncam: {scales: [true]}\n", ["cam.scales.0", "True", "number"]),
        (f"name: a\ncam: {{scales: [{'1.0, ' * 40}]}}\n", ["cam.scales", "at most 16"]),
        ("name: a\ncam: {scales: '12'}\n", ["cam.scales", "'12'", "tuple"]),
        ("name: a\nclassify: {long_side: [640, 320]}\n", ["classify.long_side", "lower bound first, as in [320, 640]"]),
        ("name: a\nclassify: {long_side: [320]}\n", ["classify.long_side"]),
        ("name: a\namn: {rescale: [1.5, 0.5]}\n", ["amn.rescale", "lower bound first"]),
        ("name: a\nwalk: {pad: -1}\n", ["walk.pad", "-1"]),
        ("name: a\nwalk: {radius: 100000}\n", ["walk.radius", "100000"]),
        ("name: a\nfarm: {gpus_per_worker: 1.5}\n", ["farm.gpus_per_worker", "1.5"]),
        (f"name: {'a' * 101}\n", ["name", "at most 100 characters"]),
        ('name: a\nweights: "a\\0b"\n', ["weights", "pattern"]),
        ("name: a\ndata: {train: ''}\n", ["data.train", "at least 1 character"]),
        (f"name: a\ndata: {{train: {'d' * 2000}}}\n", ["data.train", "at most 1024 characters"]),
        ("name: &a [*a]\n", ["the alias *a inside of what it repeats"]),
        ("name: a\ncam: &cam {scales: *cam}\n", ["the alias *cam inside of what it repeats"]),
        ("[" * 5000, ["not plain YAML", "64 levels"]),
        ("name: a\n" + "".join(f"k{n}: 1\n" for n in range(50)), ["unknown key k0", "and 42 more"]),
        ("a" * 100_000, ["more than 65536 characters"]),
    ],
)
def test_faults_are_named(text: str, words: list[str], tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(written(tmp_path, text))
    message = str(caught.value)
    assert message.isprintable() and len(message) < 2500
    assert all(word in message for word in ["c.yaml", *words]), message


@pytest.mark.parametrize(
    "setting",
    [
        *("epochs", "=3", "classify.=3", "name.x=1", "classify.epochs=[1", "classify.epochs=", "data.val= "),
        *(
            "classify={batch: 4, batch: 8}",
            "cam.scales=&a [*a]",
            "classify.lr=.inf",
            "classify.lr=1e999",
            "seed=" + "9" * 30,
        ),
        *("seed=!!int 3", "cam.scales=" + "[" * 1000, "name=" + "a" * 100_000, "\x1b[2J=3"),
    ],
)
def test_unusable_settings_are_refused(setting: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(written(tmp_path, "name: a\n"), (setting,))
    message = str(caught.value)
    assert message.isprintable() and len(message) < 600
    assert "--set" in message or "unknown key" in message


def test_a_setting_is_given_once(tmp_path: Path) -> None:
    path = written(tmp_path, "name: a\n")
    with pytest.raises(ConfigError, match=r"--set: found seed=1 and seed=2, expected seed once"):
        load_config(path, ("seed=1", "classify.epochs=2", "seed=2"))
    assert load_config(path, ("classify={epochs: 2}", "classify.batch=3")).classify.batch == 3


def test_a_rate_may_be_written_with_an_exponent_alone(tmp_path: Path) -> None:
    assert load_config(written(tmp_path, "name: a\namn: {lr: 1e-5}\n"), ("amn.lr_head=5e-4",)).amn.lr == 1e-5


def every_field() -> list[tuple[str, str]]:
    """Section and name of every setting."""
    found = []
    for section, field in Config.model_fields.items():
        inner = type(field.default)
        names = inner.model_fields if isinstance(field.default, BaseModel) else {}
        found += [(section, name) for name in names] or [("", section)]
    return found


BOUNDLESS = (float("inf"), float("nan"), 2**70, -(2**70), "x" * 5000, [1.0] * 500)


@pytest.mark.parametrize(("section", "name"), every_field())
def test_no_setting_takes_what_has_no_bound(section: str, name: str) -> None:
    for value in BOUNDLESS:
        tree = {name: value} if not section else {section: {name: value}}
        with pytest.raises(ValidationError):
            Config.model_validate({"name": "a", **tree})


@pytest.mark.parametrize(("section", "name"), every_field())
def test_true_is_no_number_and_one_is_not_true(section: str, name: str) -> None:
    usual = getattr(Config(name="a"), section or name)
    default = getattr(usual, name) if section else usual
    for value in (True, 1, 1.0):
        tree: dict[str, Any] = {name: value} if not section else {section: {name: value}}
        try:
            config = Config.model_validate({"name": "a", **tree})
        except ValidationError:
            continue
        taken = getattr(getattr(config, section), name) if section else getattr(config, name)
        assert type(taken) is type(value) or (type(taken), type(value)) == (float, int), (default, value, taken)


def test_a_file_without_an_end_is_not_read_to_the_end() -> None:
    with pytest.raises(ConfigError, match=r"/dev/zero: not plain YAML \(has more than 65536 characters"):
        load_config("/dev/zero")


OUR_KEYS = {
    "  root: base\n  layout: voc\n  train_list: train.txt": "  train: base",
    "model:\n  backbone: vgg16\ntrain:": "classify:\n  backbone: {name: vgg16}",
    "batch_size:": "batch:",
    "learning_rate:": "lr:",
}
"""The stand-in keys of the bad configurations, and ours; `batchsize`, the fault of one of them, is left as it is."""


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("unknown_key", ["classify.batchsize", "did you mean batch"]),
        ("wrong_type", ["classify.epochs", "'two'", "integer"]),
        ("python_tag", ["not plain YAML", "python/object/apply"]),
    ],
)
def test_bad_yaml_files_of_the_shared_set(
    shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, words: list[str]
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    good, bad = (in_our_keys(shared_data / "bad" / "yaml" / f"{stem}.yaml") for stem in ("ok", name))
    assert load_config(written(tmp_path, good)).classify.epochs == 2
    with pytest.raises(ConfigError) as caught:
        load_config(written(tmp_path, bad))
    assert all(word in str(caught.value) for word in ["c.yaml", *words]), caught.value
    assert not list((tmp_path / "empty").iterdir())


def in_our_keys(path: Path) -> str:
    text = path.read_text(encoding="utf-8")
    for theirs, ours in OUR_KEYS.items():
        text = text.replace(theirs, ours)
    return "name: bad\n" + text


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml"):
        load_config(tmp_path / "nowhere.yaml")


def test_a_backbone_given_in_part_keeps_what_its_stage_freezes() -> None:
    assert Irn.model_validate({"backbone": {"weights": None}}).backbone == BackboneSection(weights=None, frozen_taps=5)
    other = Irn.model_validate({"backbone": {"name": "small", "stride": 8, "weights": None}}).backbone
    assert other == BackboneSection(name="small", stride=8, weights=None, frozen_taps=5)
    found = Discriminate.model_validate({"backbone": {"weights": "a.pth"}}).backbone
    assert found == BackboneSection(name="vgg16_deeplab", stride=8, weights="a.pth", frozen_taps=0)
