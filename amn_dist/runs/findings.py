"""What a check finds: errors, which refuse a run, and notes, which are told."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from amn_dist.errors import AmnError, ConfigError, ConfigFaults, printable

Findings = Iterator[AmnError | str]
"""Faults, and notes in words, as they are found."""


def refused(check: Callable[[], object]) -> Findings:
    """The fault that a check raises, if any."""
    try:
        check()
    except AmnError as error:
        yield error
    except OSError as error:
        yield ConfigError(f"{printable(error.filename)}: {printable(error)}")


def refuse(findings: Iterable[AmnError | str], tell: Callable[[str], None] = lambda note: None) -> None:
    """Tell the notes as they come, then raise the fault there is, or all of them as one ConfigFaults."""
    faults: list[AmnError] = []
    for finding in findings:
        if isinstance(finding, str):
            tell(finding)
        else:
            faults.append(finding)
    if len(faults) > 1:
        raise ConfigFaults(*dict.fromkeys(map(str, faults)))
    for fault in faults:
        raise fault
