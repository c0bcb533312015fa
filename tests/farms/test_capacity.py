"""Room for a gang, over many shapes of clusters."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as some

from amn_dist.farms.capacity import ProcessSlots, cores_beside, process_slots, shared_slots


@pytest.mark.parametrize(
    ("nodes", "processes", "expected"),
    [
        ([{"CPU": 2.0}], 2, ProcessSlots(2, 1, False)),
        ([{"CPU": 1.0}, {"CPU": 1.0}], 2, ProcessSlots(2, 1, False)),
        ([{"CPU": 1.0}], 2, ProcessSlots(1, 1, False)),
        ([{"CPU": 64.0}] * 4, 8, ProcessSlots(8, 32, False)),
        ([{"CPU": 64.0}] * 3, 8, ProcessSlots(8, 21, False)),
        ([{"CPU": 10.0}, {"CPU": 2.0}], 2, ProcessSlots(2, 5, False)),
        ([{"CPU": 32.0, "GPU": 8.0}] * 8, 64, ProcessSlots(64, 4, True)),
        ([{"CPU": 32.0, "GPU": 8.0}, {"CPU": 96.0}], 16, ProcessSlots(8, 4, True)),
        ([], 4, ProcessSlots(0, 1, False)),
    ],
)
def test_process_slots(nodes: list[dict[str, float]], processes: int, expected: ProcessSlots) -> None:
    assert process_slots(nodes, processes=processes) == expected


@given(cores=some.lists(some.integers(1, 128), min_size=1, max_size=100), processes=some.integers(1, 300))
def test_slots_fit_on_their_nodes_and_use_what_there_is(cores: list[int], processes: int) -> None:
    slots = process_slots([{"CPU": float(count)} for count in cores], processes=processes)
    assert sum(count // slots.cpus for count in cores) >= slots.processes == min(processes, sum(cores))
    assert slots.processes < processes or sum(count // (slots.cpus + 1) for count in cores) < processes


def test_one_machine_does_for_any_number() -> None:
    assert shared_slots(2, processes=4) == ProcessSlots(4, 0.5, False)
    assert shared_slots(16, processes=3) == ProcessSlots(3, 5, False)


@pytest.mark.parametrize(
    ("nodes", "share", "cores"),
    [
        ([{"CPU": 128.0, "GPU": 8.0}, {"CPU": 96.0}], 1.0, 16),
        ([{"CPU": 128.0, "GPU": 8.0}, {"CPU": 24.0, "GPU": 4.0}], 1.0, 6),
        ([{"CPU": 32.0, "GPU": 1.0}], 0.25, 8),
        ([{"CPU": 2.0, "GPU": 4.0}], 1.0, 1),
        ([{"CPU": 8.0}], 1.0, 1),
    ],
)
def test_cores_beside_a_gpu(nodes: list[dict[str, float]], share: float, cores: int) -> None:
    assert cores_beside(nodes, share) == cores
