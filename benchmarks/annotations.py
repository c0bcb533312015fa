"""COCO's annotation file: seconds and memory to know every annotation, beside loading it as one tree of objects.

python -m benchmarks.annotations [--megabytes N]; the file is drawn in a temporary folder.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import race, write_result
from benchmarks.memory import anonymous_mib
from data_shards.instances import read_instances

IMAGE_ANNOTATIONS = 7
"""Of an image, on COCO in the mean."""


def draw_file(path: Path, *, megabytes: int) -> None:
    """An annotation file of about that size: images of 640x480 with polygons of 20 to 90 corners."""
    random, images, annotations, size = np.random.default_rng(0), [], [], 0
    while size < megabytes * 2**20:
        number = len(images) + 1
        images.append({"id": number, "file_name": f"{number:012d}.jpg", "height": 480, "width": 640})
        for _ in range(IMAGE_ANNOTATIONS):
            corners = (random.random(2 * int(random.integers(20, 90))) * 480).round(2).tolist()
            found = {"segmentation": [corners], "area": 100.5, "iscrowd": 0, "image_id": number,
                     "bbox": [1.5, 2.5, 3.5, 4.5], "category_id": int(random.integers(1, 81)),
                     "id": len(annotations) + 1}  # fmt: skip
            size += len(text := json.dumps(found)) + 2
            annotations.append(text)
    categories = [{"id": number, "name": f"class {number}", "supercategory": "thing"} for number in range(1, 81)]
    head = json.dumps({"images": images, "categories": categories})[:-1]
    path.write_text(f'{head}, "annotations": [{", ".join(annotations)}]}}')


def load_tree(path: Path) -> dict[int, list[dict[str, Any]]]:
    """Everything as Python objects, annotations by image: what a straight reader holds."""
    with open(path, encoding="utf-8") as file:
        tree = json.load(file)
    found = defaultdict(list)
    for annotation in tree["annotations"]:
        found[annotation["image_id"]].append(annotation)
    return found


def check(path: Path) -> int:
    """Assert that both know the same, outlines included, of some images; returns the number of annotations."""
    tree, table = load_tree(path), read_instances(path)
    for position in range(0, len(table.images), max(len(table.images) // 50, 1)):
        rows, listed = table.of(position), tree[table.images[position].id]
        assert rows["id"].tolist() == [annotation["id"] for annotation in listed]
        texts = table.file.read(zip(rows["start"].tolist(), rows["stop"].tolist(), strict=True))
        assert [json.loads(text) for text in texts] == [annotation["segmentation"] for annotation in listed]
    return len(table.annotations)


def memory_mib(read: Callable[[Path], Any], path: Path) -> dict[str, float]:
    """Memory a call needs in a process of its own, MiB beyond what it had before: at most, and for what it returns.

    Pages of the mapped file are not counted: the kernel takes them back when it wants.
    """
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_weigh, (read, path))


def _weigh(read: Callable[[Path], Any], path: Path) -> dict[str, float]:
    before, samples, stop = anonymous_mib(os.getpid()), [0.0], threading.Event()

    def watch() -> None:
        while not stop.is_set():
            samples.append(anonymous_mib(os.getpid()) - before)
            time.sleep(0.005)

    watcher = threading.Thread(target=watch)
    watcher.start()
    held = read(path)
    after = anonymous_mib(os.getpid()) - before
    stop.set()
    watcher.join()
    del held
    return {"peak": round(max(samples), 1), "held": round(after, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "instances.json"
        draw_file(path, megabytes=arguments.megabytes)
        count = check(path)
        rivals = {"table": read_instances, "tree": load_tree}
        timings = race({name: lambda read=read: read(path) for name, read in rivals.items()}, rounds=arguments.rounds)
        write_result(
            "annotations",
            {
                "megabytes": round(path.stat().st_size / 1e6, 1),
                "annotations": count,
                "seconds": {name: timing.as_json() for name, timing in timings.items()},
                "memory_mib": {name: memory_mib(read, path) for name, read in rivals.items()},
                "speedup": round(timings["tree"].median / timings["table"].median, 2),
            },
        )


if __name__ == "__main__":
    main()
