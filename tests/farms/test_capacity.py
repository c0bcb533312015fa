"""Room for a gang, over many shapes of clusters."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as some

from amn_dist.farms.capacity import Seats, seats, shared_seats


@pytest.mark.parametrize(
    ("nodes", "processes", "expected"),
    [
        ([{"CPU": 2.0}], 2, Seats(2, 1, False)),
        ([{"CPU": 1.0}, {"CPU": 1.0}], 2, Seats(2, 1, False)),
        ([{"CPU": 1.0}], 2, Seats(1, 1, False)),
        ([{"CPU": 64.0}] * 4, 8, Seats(8, 32, False)),
        ([{"CPU": 64.0}] * 3, 8, Seats(8, 21, False)),
        ([{"CPU": 10.0}, {"CPU": 2.0}], 2, Seats(2, 5, False)),
        ([{"CPU": 32.0, "GPU": 8.0}] * 8, 64, Seats(64, 4, True)),
        ([{"CPU": 32.0, "GPU": 8.0}, {"CPU": 96.0}], 16, Seats(8, 4, True)),
        ([], 4, Seats(0, 1, False)),
    ],
)
def test_seats(nodes: list[dict[str, float]], processes: int, expected: Seats) -> None:
    assert seats(nodes, processes=processes) == expected


@given(cores=some.lists(some.integers(1, 128), min_size=1, max_size=100), processes=some.integers(1, 300))
def test_seats_fit_on_their_nodes_and_use_what_there_is(cores: list[int], processes: int) -> None:
    found = seats([{"CPU": float(count)} for count in cores], processes=processes)
    assert sum(count // found.cpus for count in cores) >= found.processes == min(processes, sum(cores))
    assert found.processes < processes or sum(count // (found.cpus + 1) for count in cores) < processes


def test_one_machine_does_for_any_number() -> None:
    assert shared_seats(2, processes=4) == Seats(4, 0.5, False)
    assert shared_seats(16, processes=3) == Seats(3, 5, False)
