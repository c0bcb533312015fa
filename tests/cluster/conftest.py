"""Two hosts on one machine: network namespaces with an address each (benchmarks/namespaces.py)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.namespaces import Hosts, NoNamespaces, wired


@pytest.fixture
def wires(tmp_path: Path) -> Iterator[Hosts]:
    """Two hosts on which nothing runs yet; everything of them is removed afterwards."""
    try:
        with wired(tmp_path / "cluster", 2) as two:
            yield two
    except NoNamespaces as reason:
        pytest.skip(str(reason))


@pytest.fixture
def hosts(wires: Hosts) -> Hosts:
    """Two hosts with a core each, up as one cluster."""
    wires.list_hosts()
    wires.launch("up")
    return wires
