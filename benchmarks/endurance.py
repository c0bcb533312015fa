"""A run over hosts that die: who is killed when, who starts again, what everybody holds meanwhile."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.memory import Held, anonymous_mib
from benchmarks.namespaces import Hosts

BUCKET = "soak"
UNTIL = "cam_seed"
BACK_S, SAMPLE_S = 10.0, 2.0
"""Seconds until a host is back; between two looks at memory."""
PATIENCE_S = 1500.0
"""Seconds that the last run may take after the minutes."""


@dataclass(frozen=True)
class Plan:
    """minutes: in which hosts die, one `every_s` seconds. images: of the set, in shards of shard_size."""

    minutes: float = 30.0
    every_s: float = 120.0
    images: int = 4000
    shard_size: int = 40
    share: float = 0.01
    seed: int = 0

    def victims(self, names: Sequence[str]) -> Iterator[str]:
        """Who dies next, for ever."""
        draw = random.Random(self.seed)
        while True:
            yield draw.choice(list(names))


@dataclass
class Course:
    """What happened. at: seconds since the first run began. most: MiB a host held at most since this run began."""

    deaths: list[dict[str, Any]] = field(default_factory=list)
    runs: list[dict[str, Any]] = field(default_factory=list)
    driver: list[Held] = field(default_factory=list)
    hosts: dict[str, list[Held]] = field(default_factory=dict)
    most: dict[str, float] = field(default_factory=dict)


class Driver:
    """`amn run` on the first host, run after run; `lives` counts how often it was started."""

    def __init__(self, hosts: Hosts, folder: Path, run: int) -> None:
        self.hosts, self.folder, self.run, self.lives = hosts, folder, run, 0
        self.begun = time.monotonic()
        self.start()

    @property
    def url(self) -> str:
        return f"s3://{BUCKET}/run{self.run}"

    def start(self) -> None:
        """The same command as ever."""
        self.lives += 1
        self.said = self.folder / f"driver-{self.run}-{self.lives}.txt"
        words: list[str | Path] = [
            "run",
            self.folder / "soak.yaml",
            "--data",
            f"s3://{BUCKET}/data",
            "--run",
            self.url,
            "--no-reuse",
        ]
        self.process = self.hosts.amn(*words, "--until", UNTIL, "--address", self.hosts.address, said=self.said)

    def end(self) -> str:
        """What it said last."""
        return "\n".join(self.said.read_text(errors="replace").splitlines()[-5:])


class Disturber:
    """Kills hosts when it is time and brings them back."""

    def __init__(self, hosts: Hosts, plan: Plan, start: float) -> None:
        self.hosts, self.plan, self.start = hosts, plan, start
        self.victims = plan.victims(hosts.names)
        self.next, self.back = start + plan.every_s, 0.0
        self.lives = dict.fromkeys(hosts.names, 1)

    def over(self, now: float) -> bool:
        return now >= self.start + 60 * self.plan.minutes

    def strike(self, now: float, course: Course) -> None:
        """Kill a host if it is time; without its head a cluster is no more, and is started anew as a whole."""
        if self.back or now < self.next or self.over(now):
            return
        victim = next(self.victims)
        self.next, self.back = self.next + self.plan.every_s, now + BACK_S
        self._power_off(victim)
        if victim == self.hosts.names[0]:
            for name in self.hosts.names[1:]:
                self._power_off(name)
        course.deaths.append({"at_s": round(now - self.start, 1), "host": self.hosts.names.index(victim)})

    def _power_off(self, name: str) -> None:
        self.hosts.kill(name)
        # Where nobody collects its dead, launch/hosts.sh would take them for running.
        (self.hosts.folder / f"{name}.pid").unlink(missing_ok=True)
        self.lives[name] += 1

    def bring_back(self, now: float) -> bool:
        """Start what is not up once its time has come; whether it did."""
        if not self.back or now < self.back:
            return False
        self.hosts.launch("up")
        self.back = 0.0
        return True


def endured(hosts: Hosts, plan: Plan, folder: Path, expected: Mapping[str, str]) -> Course:
    """Runs under deaths, until the minutes are over and the last run is whole."""
    course, start = Course(hosts={name: [] for name in hosts.names}), time.monotonic()
    disturber, driver = Disturber(hosts, plan, start), Driver(hosts, folder, 0)
    looked = start
    while True:
        now = time.monotonic()
        assert now < start + 60 * plan.minutes + PATIENCE_S, f"run {driver.run} did not end: {driver.end()}"
        if now >= looked:
            looked = now + SAMPLE_S
            look(course, hosts, driver, disturber, now - start)
        disturber.strike(now, course)
        brought = disturber.bring_back(now)
        code = driver.process.poll()
        if code == 0:
            course.runs.append({**whole(hosts, driver, expected), "most_mib": dict(course.most)})
            course.most.clear()
            if disturber.over(now):
                return course
            driver = Driver(hosts, folder, driver.run + 1)
        elif code is not None:
            assert code < 0, f"run {driver.run} ended with {code} though its host lived: {driver.end()}"
            if brought or not disturber.back:
                driver.start()
        time.sleep(0.1)


def look(course: Course, hosts: Hosts, driver: Driver, disturber: Disturber, at: float) -> None:
    """Note what the driver and every host hold."""
    pid = driver.process.pid
    if driver.process.poll() is None:
        course.driver.append(Held(1000 * driver.run + driver.lives, at, anonymous_mib(pid)))
    for number, name in enumerate(hosts.names):
        others = [one for one in hosts.processes(name) if one != pid]
        if others:
            held = Held(disturber.lives[name], at, sum(map(anonymous_mib, others)))
            course.hosts[name].append(held)
            host = f"host {number}"
            course.most[host] = round(max(course.most.get(host, 0.0), held.mib), 1)


def whole(hosts: Hosts, driver: Driver, expected: Mapping[str, str]) -> dict[str, Any]:
    """A run that has ended; its digests must be those expected."""
    found = json.loads(asked(hosts, "digests", driver.url))
    assert found == expected, f"run {driver.run}: found {found}, expected {expected}"
    return {"seconds": round(time.monotonic() - driver.begun, 1), "driver_lives": driver.lives, "equal": True}


def asked(hosts: Hosts, what: str, *words: str | Path) -> str:
    """What a function of this file prints on the first host."""
    process = hosts.python(hosts.names[0], "-m", "benchmarks.soak_hosts", "--ask", what, *words)
    said, _ = process.communicate(timeout=600)
    assert process.returncode == 0, said
    return said.splitlines()[-1] if said else ""
