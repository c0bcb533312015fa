"""Work that was begun from other settings, inputs or code: found, asked about, kept with its history, or dropped."""

from __future__ import annotations

import json
import uuid
from pathlib import Path

import pytest

from amn_dist.config import Config
from amn_dist.errors import ConfigError
from amn_dist.interfaces import Context
from amn_dist.methods import Stage, stages
from amn_dist.runs.neighbours import reuse
from amn_dist.runs.origins import Origin, is_of, origin_of
from amn_dist.runs.run import Run, write_json
from amn_dist.runs.unfinished import UNDECIDED, Decision, find_unfinished, settle, work_of
from amn_dist.shards.writer import write_shard
from amn_dist.storage.paths import AnyPath, RemotePath
from amn_dist.training.checkpoints import STATE

KEEP = Decision(keep=True)
FIELDS = ("seed.png",)


@pytest.fixture(params=["folder", "url"])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Run:
    """A run that nothing has begun in."""
    root: AnyPath = tmp_path if request.param == "folder" else RemotePath(f"memory://{uuid.uuid4().hex}")
    return Run(root / "a")


def config(**classify: object) -> Config:
    return Config.model_validate({"name": "x", "classify": {"backbone": {"weights": None}, **classify}})


def named(name: str, settings: Config) -> Stage:
    return next(stage for stage in stages(settings) if stage.name == name)


CLASSIFY, SEED = (named(name, config()) for name in ("classify", "cam_seed"))
CLASSES = ("background", "cat")
NETWORK = CLASSIFY.architecture(config())
INPUTS = {"train set": "1", "classify": "w"}


def origin(**classify: object) -> Origin:
    return origin_of(CLASSIFY, Context(config(**classify), CLASSES), {"train set": "1"})


def half_trained(run: Run, made: Origin, step: int = 400) -> None:
    """What a killed Fit leaves."""
    run.begin(CLASSIFY, made)
    for number in (step - 200, step):
        (run.stage("classify") / "checkpoints" / f"{number:06d}").mkdir(parents=True)
        write_json(run.stage("classify") / "checkpoints" / f"{number:06d}" / STATE, {"step": number, "files": {}})


def half_mapped(run: Run, made: Origin, fields: tuple[str, ...] = FIELDS) -> None:
    """What a killed Map leaves."""
    run.begin(SEED, made)
    for number in range(2):
        write_shard(run.stage("cam_seed"), number, [(f"k{number}", (4, 4), dict.fromkeys(fields, b"x"))])


def seed_origin(inputs: dict[str, str] = INPUTS, **section: object) -> Origin:
    settings = Config.model_validate({"name": "x", "cam_seed": section})
    return origin_of(SEED, Context(settings, CLASSES), inputs)


def recode(made: Origin, path: str) -> Origin:
    """The same with other code."""
    return Origin(made.settings, made.inputs, "0" * 16, {**made.modules, path: "0" * 16})


def test_work_of_the_same_origin_is_no_question(run: Run) -> None:
    half_trained(run, origin())
    assert settle(run, CLASSIFY, origin(), UNDECIDED, architecture=NETWORK) == ""
    assert not run.begin(CLASSIFY, origin()) and work_of(run, CLASSIFY) == "a checkpoint of step 400"


def test_what_holds_nothing_finished_is_no_question(run: Run) -> None:
    run.begin(CLASSIFY, origin())
    (run.stage("classify") / "metrics.jsonl").touch()
    assert settle(run, CLASSIFY, origin(epochs=9), UNDECIDED, architecture=NETWORK) == ""
    assert run.begin(CLASSIFY, origin(epochs=9))


def test_without_a_decision_the_run_stops_and_nothing_is_touched(run: Run) -> None:
    half_trained(run, origin())
    before = run.origin("classify")
    with pytest.raises(ConfigError) as told:
        settle(run, CLASSIFY, origin(epochs=9), UNDECIDED, architecture=NETWORK)
    said = str(told.value)
    assert said.startswith(f"{run.stage('classify')}: holds a checkpoint of step 400, made with ")
    assert "setting classify.epochs 5, now 9" in said and "\n" not in said
    assert "--keep goes on with it" in said and "--redo classify drops it and begins anew" in said
    assert run.origin("classify") == before and work_of(run, CLASSIFY) == "a checkpoint of step 400"


def test_no_is_the_answer_of_whoever_does_not_say_yes(run: Run) -> None:
    half_trained(run, origin())
    asked: list[str] = []

    def no(question: str) -> bool:
        asked.append(question)
        return False

    with pytest.raises(ConfigError, match="--keep goes on"):
        settle(run, CLASSIFY, origin(epochs=9), Decision(ask=no), architecture=NETWORK)
    assert len(asked) == 1 and "step 400" in asked[0] and asked[0].endswith("Drop it and begin anew?")
    assert work_of(run, CLASSIFY) == "a checkpoint of step 400"
    told = settle(run, CLASSIFY, origin(epochs=9), Decision(ask=lambda question: True), architecture=NETWORK)
    assert told.endswith("was dropped") and work_of(run, CLASSIFY) == "" and run.origin("classify") is None


def test_kept_work_says_what_it_is_made_of_and_is_asked_about_once(run: Run) -> None:
    half_trained(run, origin())
    first = run.origin("classify")
    now = origin(lr=0.2)
    told = settle(run, CLASSIFY, now, KEEP, architecture=NETWORK)
    assert "goes on with a checkpoint of step 400, made with setting classify.lr 0.1, now 0.2" in told
    assert not run.begin(CLASSIFY, now) and work_of(run, CLASSIFY) == "a checkpoint of step 400"
    known = run.origin("classify")
    assert known is not None and is_of(known, now)
    assert known["before"] == [{**(first or {}), "reached": "a checkpoint of step 400"}]
    assert settle(run, CLASSIFY, now, UNDECIDED, architecture=NETWORK) == ""
    half_trained(run, now, 800)
    settle(run, CLASSIFY, origin(lr=0.3), KEEP, architecture=NETWORK)
    history = (run.origin("classify") or {})["before"]
    assert [part["settings"]["classify"]["lr"] for part in history] == [0.1, 0.2]
    assert [part["reached"] for part in history] == ["a checkpoint of step 400", "a checkpoint of step 800"]


def test_a_stage_of_two_origins_passes_for_neither(run: Run) -> None:
    half_trained(run, origin())
    settle(run, CLASSIFY, origin(lr=0.2), KEEP, architecture=NETWORK)
    write_json(run.stage("classify") / "done.json", {"digest": "d"})
    run.check_unchanged(CLASSIFY, origin(lr=0.2))
    other = Run(run.folder.parent / "b")
    other.stage("x").mkdir(parents=True)
    assert [reuse(other, CLASSIFY, origin(lr=lr)) for lr in (0.1, 0.2)] == [None, None]


def test_of_other_code_the_modules_are_named_and_going_on_is_advised(run: Run) -> None:
    half_trained(run, recode(origin(), "models/cam.py"))
    found = find_unfinished(run, CLASSIFY, origin(), architecture=NETWORK)
    assert found is not None and found.code
    assert found.changed == "other code (models/cam.py)" and "the sensible choice" in found.choices


def test_half_done_work_of_a_version_with_one_digest_of_all_code_is_asked_about(run: Run) -> None:
    half_trained(run, origin())
    known = dict(run.origin("classify") or {})
    del known["modules"], known["settings"]["classify"]["long_side"]
    write_json(run.stage("classify") / "origin.json", {**known, "code": "ffffffffffffffff"})
    found = find_unfinished(run, CLASSIFY, origin(), architecture=NETWORK)
    assert found is not None and found.code and found.changed == "the code of an earlier version"
    settle(run, CLASSIFY, origin(), KEEP, architecture=NETWORK)
    assert (run.origin("classify") or {})["before"][0]["code"] == "ffffffffffffffff"
    write_json(run.stage("classify") / "origin.json", {**known, "code": "ffffffffffffffff"})
    write_json(run.stage("classify") / "done.json", {"digest": "d"})
    run.check_unchanged(CLASSIFY, origin())


@pytest.mark.parametrize(
    ("now", "why"),
    [
        ({"backbone": {"name": "vgg16", "weights": None}}, "backbone.frozen_taps|backbone.name resnet50, now vgg16"),
        ({"backbone": {"frozen_taps": 1, "weights": None}}, "backbone.frozen_taps 3, now 1"),
        ({"optimiser": "adam"}, "optimiser sgd, now adam"),
    ],
)
def test_checkpoints_of_another_network_are_not_kept(run: Run, now: dict[str, object], why: str) -> None:
    half_trained(run, origin())
    with pytest.raises(ConfigError, match=rf"it cannot be gone on with \(of another network or optimiser: ({why})"):
        settle(run, CLASSIFY, origin(**now), KEEP, architecture=NETWORK)
    assert work_of(run, CLASSIFY) == "a checkpoint of step 400"


def test_other_initial_weights_leave_checkpoints_usable(run: Run, tmp_path: Path) -> None:
    half_trained(run, origin())
    (tmp_path / "w.pth").touch()
    settle(run, CLASSIFY, origin(backbone={"weights": str(tmp_path / "w.pth")}), KEEP, architecture=NETWORK)
    assert work_of(run, CLASSIFY) == "a checkpoint of step 400"


def test_shards_of_two_origins_are_mixed_on_request_alone(run: Run) -> None:
    half_mapped(run, seed_origin())
    with pytest.raises(
        ConfigError, match=r"holds 2 finished shards, made with setting cam_seed\.foreground 0\.3, now"
    ) as no:
        settle(run, SEED, seed_origin(foreground=0.5), UNDECIDED, fields=FIELDS)
    assert "mixes the two" in str(no.value) and "--redo cam_seed" in str(no.value)
    settle(run, SEED, seed_origin(foreground=0.5), KEEP, fields=FIELDS)
    assert not run.begin(SEED, seed_origin(foreground=0.5)) and work_of(run, SEED) == "2 finished shards"


def test_shards_over_other_images_or_with_other_fields_are_not_kept(run: Run) -> None:
    half_mapped(run, seed_origin())
    with pytest.raises(ConfigError, match="its shards lie over other images"):
        settle(run, SEED, seed_origin({**INPUTS, "train set": "2"}), KEEP, fields=FIELDS)
    with pytest.raises(ConfigError, match=r"its shards hold seed\.png, now mask\.png seed\.png are wanted"):
        settle(run, SEED, seed_origin(foreground=0.5), KEEP, fields=("seed.png", "mask.png"))
    assert settle(run, SEED, seed_origin({**INPUTS, "classify": "v"}), KEEP, fields=FIELDS)


def test_a_damaged_origin_is_told_apart(run: Run) -> None:
    half_trained(run, origin())
    write_json(run.stage("classify") / "origin.json", json.loads("{}"))
    with pytest.raises(ConfigError, match="missing required field `settings`; mend it, or --redo classify"):
        settle(run, CLASSIFY, origin(), UNDECIDED, architecture=NETWORK)
