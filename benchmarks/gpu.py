"""What does one GPU gain over the published loop on the same GPU, stage by stage, and how far is it from its peak?

Walk, CRF, maps, edges and training steps; each is checked, raced, and stands beside the time that its operations or
bytes take at the peak measured first, and what the model of counts says (results/scale.json). Every part is a process
of its own with a limit of its own: one that fails, is out of time or lacks a package is named with its reason, and the
others go on. torch, triton and numpy are needed; what a part needs beyond them, it says. Ends within nine minutes and
writes one JSON.

    benchmarks/gpu.sh [--parts walk cam] [--seconds 520] [--tiny --device cpu]
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

import torch

from amn_dist.errors import printable
from benchmarks.device.figures import PEAK, Setting, beside_model, predictions, with_floors, with_model
from benchmarks.harness import write_result

PARTS: dict[str, tuple[str, int]] = {
    PEAK: ("peak:peaks", 40),
    "walk": ("walks:walks", 90),
    "crf": ("crfs:pairs", 120),
    "cam": ("maps:cam", 70),
    "amn": ("maps:amn", 80),
    "edges": ("maps:edges", 50),
    **{f"step_{stage}": (f"steps:step:{stage}", 60) for stage in ("classify", "amn", "irn", "segment")},
    "decode": ("extras:decode", 60),
    "deepspeed": ("extras:deepspeed", 60),
    "farm": ("extras:farm", 60),
}
"""module:function[:argument] of benchmarks.device, and most seconds it may take."""
LEAST_S = 15
"""A part is not begun with less time left."""
OURS = ("amn_dist", "benchmarks", "data_shards")


def attempted(name: str, setting: Setting) -> dict[str, Any]:
    """A part's figures; or why there are none: the missing package, or the line that failed."""
    module, function, *arguments = PARTS[name][0].split(":")
    start = time.perf_counter()
    try:
        torch.manual_seed(0)
        found = getattr(importlib.import_module(f"benchmarks.device.{module}"), function)(setting, *arguments)
        return {"figures": found, "seconds": round(time.perf_counter() - start, 1)}
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] in OURS:
            return {"failed": told(error)}
        return {"skipped": f"needs {(error.name or str(error)).split('.')[0]}, which is not installed"}
    except Exception as error:
        return {"failed": told(error)}


def told(error: BaseException) -> str:
    """An exception in one line, with the place of ours it came through last."""
    frames = traceback.extract_tb(error.__traceback__)
    here = [frame for frame in frames if any(f"/{name}/" in frame.filename for name in OURS)] or frames
    place = f"{Path(here[-1].filename).name}:{here[-1].lineno}" if here else "?"
    return f"{type(error).__name__}: {printable(error, 300)} ({place})"


def run_part(name: str, asked: argparse.Namespace, limit: float) -> dict[str, Any]:
    """A part in a process of its own, killed with its children when its time is up."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "part.json"
        words = ["--part", name, "--out", str(out), "--device", asked.device, *(["--tiny"] if asked.tiny else [])]
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.gpu", *words],
            env=surroundings(asked.device),
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        try:
            _, said = process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            return {"failed": f"took more than its {limit:.0f} s"}
        if out.is_file():
            return dict(json.loads(out.read_text()))
        last = (said.strip().splitlines() or ["it said nothing"])[-1]
        return {"failed": f"its process ended with {process.returncode}: {last[:300]}"}


def surroundings(device: str) -> dict[str, str]:
    """The environment of a part; without a device its kernels are interpreted, and none is seen."""
    path = os.pathsep.join(filter(None, (str(Path(__file__).resolve().parents[1]), os.environ.get("PYTHONPATH"))))
    extra = {"CUDA_VISIBLE_DEVICES": "", "TRITON_INTERPRET": "1"} if device == "cpu" else {}
    return {**os.environ, "PYTHONPATH": path, **extra}


def run_all(asked: argparse.Namespace) -> dict[str, Any]:
    """Every part in turn while there is time."""
    end = time.monotonic() + asked.seconds
    parts: dict[str, Any] = {}
    skipped: dict[str, str] = {}
    failed: dict[str, str] = {}
    model = {} if asked.tiny else predictions()
    for name in asked.parts:
        left = end - time.monotonic()
        limit = left if asked.tiny else min(left, PARTS[name][1])
        made = {"skipped": "no time left"} if left < LEAST_S else run_part(name, asked, limit)
        if "figures" in made:
            parts[name] = {**with_model(made["figures"], model.get(name, {})), "part_s": made["seconds"]}
        for reasons, word in ((skipped, "skipped"), (failed, "failed")):
            if word in made:
                reasons[name] = made[word]
        beside = beside_model(parts[name]) if name in parts else ""
        note = (
            f"{made['seconds']} s{beside}" if "figures" in made else made.get("skipped") or f"FAILED {made['failed']}"
        )
        print(f"{name}: {note}", file=sys.stderr, flush=True)
    taken = round(asked.seconds - (end - time.monotonic()), 1)
    return {"device": asked.device, "tiny": asked.tiny, "parts": with_floors(parts), "skipped": skipped,
            "failed": failed, "count": {"done": len(parts), "failed": len(failed)}, "seconds": taken}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="small sizes, to see that everything works")
    parser.add_argument("--seconds", type=float, default=520, help="for everything")
    parser.add_argument("--part", choices=list(PARTS), help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.device == "cuda" and not torch.cuda.is_available():
        print("gpu: there is no CUDA device here; nothing was measured (--tiny --device cpu tries all parts)")
        return
    if asked.part:
        asked.out.write_text(json.dumps(attempted(asked.part, Setting(asked.device, asked.tiny))))
        return
    if asked.device == "cuda":
        asked.parts = [PEAK, *(name for name in asked.parts if name != PEAK)]
    write_result("gpu_tiny" if asked.tiny else "gpu", run_all(asked))


if __name__ == "__main__":
    main()
