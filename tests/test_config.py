"""Configurations: what is read is what was meant, and everything else is refused by name."""

from pathlib import Path

import pytest

from amn_dist.config import Backbone, Config, Discriminate, Irn, dump_config, load_config
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


def test_defaults_are_the_published_voc_settings() -> None:
    config = Config(name="voc")
    assert (config.classify.batch, config.classify.epochs, config.classify.lr, config.classify.lr_head) == (
        16,
        5,
        0.1,
        1,
    )
    assert config.classify.momentum_slip and config.irn.momentum_slip and not config.segment.momentum_slip
    assert (config.amn.optimiser, config.amn.lr, config.amn.lr_head, config.amn.schedule) == (
        "adam",
        5e-6,
        1e-4,
        "constant",
    )
    assert (config.cam_seed.foreground, config.cam_seed.background) == (0.30, 0.05)
    assert (config.amn_seed.foreground, config.amn_seed.background) == (0.45, 0.15)
    found = config.discriminate
    assert (found.batch, found.epochs, found.crop, found.warmup) == (32, 20, 321, 661)
    assert (found.lr, found.lr_hidden, found.lr_head, found.weight_decay) == (1e-3, 1e-3, 1e-2, 5e-4)
    assert not found.momentum_slip and not found.mask_padding and found.schedule == "poly_epoch"
    assert (config.icd_map.scales, config.icd_map.flip, config.icd_map.pad) == ((1.0,), False, 513)
    assert (config.icd_seed.rule, config.icd_seed.crf) == ("signed", "auto")
    assert (config.irn.batch, config.irn.epochs, config.irn.radius, config.irn.lr_head) == (32, 3, 10, 0.1)
    assert (config.walk.radius, config.walk.beta, config.walk.steps, config.walk.background) == (5, 10, 256, 0.25)


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
    ],
)
def test_faults_are_named(text: str, words: list[str], tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(written(tmp_path, text))
    message = str(caught.value)
    assert "\n" not in message
    assert all(word in message for word in ["c.yaml", *words]), message


@pytest.mark.parametrize("setting", ["epochs", "=3", "classify.=3", "name.x=1", "classify.epochs=[1"])
def test_unusable_settings_are_refused(setting: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--set"):
        load_config(written(tmp_path, "name: a\n"), (setting,))


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
    assert Irn.model_validate({"backbone": {"weights": None}}).backbone == Backbone(weights=None, frozen_taps=5)
    other = Irn.model_validate({"backbone": {"name": "small", "stride": 8, "weights": None}}).backbone
    assert other == Backbone(name="small", stride=8, weights=None, frozen_taps=5)
    found = Discriminate.model_validate({"backbone": {"weights": "a.pth"}}).backbone
    assert found == Backbone(name="vgg16_deeplab", stride=8, weights="a.pth", frozen_taps=0)
