"""A run's folder: what counts as done, as unchanged, as the same."""

import os
import uuid
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from amn_dist.config import Config
from amn_dist.errors import ConfigError
from amn_dist.interfaces import Context
from amn_dist.methods import stages
from amn_dist.runs.neighbours import reuse
from amn_dist.runs.origins import Origin, is_of, machine_difference, origin_of, weights_file_digest
from amn_dist.runs.pipeline import reopen
from amn_dist.runs.run import Run, write_json
from amn_dist.runs.unfinished import difference
from amn_dist.storage.paths import AnyPath, RemotePath


@pytest.fixture(params=["folder", "url"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> AnyPath:
    """A place for runs."""
    return tmp_path if request.param == "folder" else RemotePath(f"memory://{uuid.uuid4().hex}")


def finished(folder: AnyPath, name: str, origin: Origin) -> Run:
    run = Run(folder)
    stage = stage_named(name)
    run.begin(stage, origin)
    (run.stage(name) / "model.safetensors").write_bytes(b"weights")
    write_json(run.stage(name) / "done.json", {"digest": sha256(b"weights").hexdigest()})
    return run


def stage_named(name: str) -> object:
    return next(stage for stage in stages(Config(name="x")) if stage.name == name)


def origin(config: Config, **inputs: str) -> Origin:
    context = Context(config.model_copy(update={"weights": "."}), ("background", "cat"))
    return origin_of(stage_named("classify"), context, inputs)


CONFIG = Config.model_validate({"name": "x", "classify": {"backbone": {"weights": None}}})


def test_a_stage_is_done_when_its_last_file_is_there(root: AnyPath) -> None:
    run = Run(root / "a")
    stage = stage_named("classify")
    run.begin(stage, origin(CONFIG, images="1"))
    assert not run.is_done(stage)
    assert finished(root / "a", "classify", origin(CONFIG, images="1")).is_done(stage)


def test_a_finished_stage_of_other_settings_is_refused_with_the_difference(root: AnyPath) -> None:
    run = finished(root / "a", "classify", origin(CONFIG, images="1"))
    other = Config.model_validate({"name": "x", "classify": {"epochs": 9, "backbone": {"weights": None}}})
    run.check_unchanged(stage_named("classify"), origin(CONFIG, images="1"))
    with pytest.raises(ConfigError, match=r"classify\.epochs 5, now 9.*--redo classify"):
        run.check_unchanged(stage_named("classify"), origin(other, images="1"))
    with pytest.raises(ConfigError, match="images 1, now 2"):
        run.check_unchanged(stage_named("classify"), origin(CONFIG, images="2"))


def test_settings_that_an_older_version_did_not_have_are_not_compared(root: AnyPath) -> None:
    made = origin(CONFIG, images="1")
    older = {**made.settings, "classify": {**made.settings["classify"]}}
    del older["classify"]["long_side"], older["classify"]["epochs"]
    run = finished(root / "a", "classify", Origin(older, made.inputs, "other code"))
    run.check_unchanged(stage_named("classify"), made)
    other = Config.model_validate({"name": "x", "classify": {"batch": 9, "backbone": {"weights": None}}})
    with pytest.raises(ConfigError, match=r"classify\.batch 16, now 9"):
        run.check_unchanged(stage_named("classify"), origin(other, images="1"))


ODD = [
    ("[]", "Expected `object`"),
    ("{}", "missing required field"),
    ("[" * 100_000, "more than 64 levels"),
    ("\xff", "not UTF-8"),
    ('{"digest": 7, "settings": 7, "inputs": {}, "code": ""}', "Expected `(str|object)`, got `int`"),
    ('{"digest": "d", "digest": "e"}', "the key 'digest' twice"),
    ('{"settings": {"a": NaN}, "inputs": {}, "code": ""}', "the number NaN"),
    ('{"settings": {}, "inputs": {"a": 1}, "code": ""}', "missing|Expected `str`, got `int`"),
]


@pytest.mark.parametrize("name", ["done.json", "origin.json"])
@pytest.mark.parametrize(("text", "told"), ODD)
def test_what_a_stage_says_of_itself_is_not_guessed_at(root: AnyPath, name: str, text: str, told: str) -> None:
    run = finished(root / "a", "classify", origin(CONFIG, images="1"))
    (run.stage("classify") / name).write_bytes(text.encode("latin1"))
    read = {"done.json": lambda: run.digest(stage_named("classify")), "origin.json": lambda: run.origin("classify")}
    with pytest.raises(ConfigError, match=rf"classify/{name}: .*({told}).*; mend it, or --redo classify") as caught:
        read[name]()
    assert str(caught.value).isprintable() and caught.value.exit_code == 2


@pytest.mark.parametrize("text", ["{}", "[]", '{"data": 3}', '{"data": "a", "data": "b"}', "[" * 100_000])
def test_where_the_data_of_a_run_lies_is_not_guessed_at(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.yaml").write_text("name: x\n")
    (tmp_path / "data.json").write_text(text)
    with pytest.raises(ConfigError, match=r"data\.json: "):
        reopen(tmp_path)


def test_unfinished_work_of_another_origin_is_dropped(root: AnyPath) -> None:
    run, stage = Run(root / "a"), stage_named("classify")
    assert not run.begin(stage, origin(CONFIG, images="1"))
    (run.stage("classify") / "half").touch()
    assert not run.begin(stage, origin(CONFIG, images="1"))
    assert (run.stage("classify") / "half").exists()
    assert run.begin(stage, origin(CONFIG, images="2"))
    assert not (run.stage("classify") / "half").exists()


def test_a_sibling_of_equal_origin_is_taken_over_and_outlives_it(root: AnyPath) -> None:
    first = finished(root / "a", "classify", origin(CONFIG, images="1"))
    run, stage = Run(root / "b"), stage_named("classify")
    run.folder.mkdir()
    assert reuse(run, stage, origin(CONFIG, images="2")) is None
    assert reuse(run, stage, origin(CONFIG, images="1")) == "a"
    first.drop(["classify"])
    assert not first.stage("classify").exists()
    assert run.is_done(stage) and run.checkpoint("classify").read_bytes() == b"weights"


def on(machine: dict[str, str], made: Origin) -> Origin:
    """The same origin on another machine."""
    return replace(made, settings={**made.settings, "resolved": {**made.settings["resolved"], **machine}})


def test_an_origin_says_what_auto_came_to() -> None:
    made = origin(CONFIG, images="1").settings["resolved"]
    assert made["device"] in ("cpu", "cuda") and made["precision"] in ("bf16", "fp32")
    assert made["decoding"] in ("cpu", "gpu")
    asked = Config.model_validate({**CONFIG.model_dump(), "engine": {"precision": "bf16"}, "loader": {"device": "gpu"}})
    found = origin(asked, images="1").settings["resolved"]
    assert (found["precision"], found["decoding"]) == ("bf16", "gpu")


@pytest.mark.parametrize("machine", [{"device": "other"}, {"precision": "other"}, {"decoding": "other"}])
def test_work_of_another_machine_is_another_origin(machine: dict[str, str], root: AnyPath) -> None:
    here = origin(CONFIG, images="1")
    there = on(machine, here)
    finished(root / "a", "classify", there)
    run, stage = Run(root / "b"), stage_named("classify")
    run.folder.mkdir()
    assert reuse(run, stage, here) is None and not is_of(there.as_json(), here)
    name = next(iter(machine))
    assert difference(there.as_json(), here) == f"setting resolved.{name} other, now {here.settings['resolved'][name]}"


def test_what_is_finished_on_another_machine_stays_and_is_named(root: AnyPath) -> None:
    here = origin(CONFIG, images="1")
    there = on({"device": "cuda", "precision": "bf16", "decoding": "gpu"}, here)
    run = finished(root / "a", "classify", there)
    run.check_unchanged(stage_named("classify"), here)
    said = machine_difference(there.as_json(), on({"device": "cpu", "precision": "fp32", "decoding": "cpu"}, here))
    assert said == "made on cuda in bf16, decoded there, what follows on cpu in fp32"
    assert machine_difference(here.as_json(), here) == ""


def test_origins_of_versions_that_did_not_say_it_are_accepted(root: AnyPath) -> None:
    here = origin(CONFIG, images="1")
    older = replace(here, settings={name: value for name, value in here.settings.items() if name != "resolved"})
    finished(root / "a", "classify", older)
    run, stage = Run(root / "b"), stage_named("classify")
    run.folder.mkdir()
    assert is_of(older.as_json(), here) and machine_difference(older.as_json(), here) == ""
    assert reuse(run, stage, here) == "a"
    assert not is_of({**older.as_json(), "code": "other"}, here)


def test_siblings_are_folders_beside_a_run(root: AnyPath) -> None:
    for name in ("a", "b"):
        finished(root / name, "classify", origin(CONFIG, images="1"))
    (root / "notes.txt").touch()
    assert [other.folder.name for other in Run(root / "a").siblings()] == ["b"]
    assert Run(root / "c" / "d").siblings() == []
    assert Run(RemotePath("memory://alone")).siblings() == []


def test_weights_that_change_have_another_digest(tmp_path: Path) -> None:
    weights, digests = tmp_path / "w.pth", []
    for number, content in enumerate((b"one", b"two")):
        weights.write_bytes(content)
        os.utime(weights, ns=(number, number))
        digests += [weights_file_digest(str(weights)), weights_file_digest(str(weights))]
    assert digests == [sha256(content).hexdigest() for content in (b"one", b"one", b"two", b"two")]
