"""When a run that keeps state may read what its group gives, waits, or must end."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from gillnet.connectors.kafka.kept_partitions import IN_A_STATE, KeptPartitions
from gillnet.core.errors import SourceError
from gillnet.testing.clock import SimulatedClock


def kept(clock: SimulatedClock | None = None) -> KeptPartitions:
    made = KeptPartitions("Kafka source 'payments'", wait_s=50.0, clock=clock or SimulatedClock())
    made.begin([0, 1, 2, 3])
    return made


def committed(partition: int, metadata: str) -> SimpleNamespace:
    return SimpleNamespace(partition=partition, offset=7, metadata=metadata)


def test_it_waits_for_every_partition_and_goes_on_when_they_have_come() -> None:
    clock = SimulatedClock()
    known = kept(clock)
    assert known.assigned([], [0, 1])
    assert known.waits
    clock.sleep(49.0)
    known.check()
    assert known.assigned([], [0, 1, 2, 3]), "it waited until now, so what was held back goes on"
    assert not known.waits
    clock.sleep(100.0)
    known.check()


def test_partitions_that_never_come_end_the_run() -> None:
    clock = SimulatedClock()
    known = kept(clock)
    known.assigned([], [0, 1])
    clock.sleep(50.0)
    with pytest.raises(SourceError, match=r"gave partition 2, 3 to another member"):
        known.check()


def test_what_is_in_another_runs_state_is_refused_and_what_is_in_its_own_is_not() -> None:
    known = kept()
    known.committed([committed(p, IN_A_STATE if p < 2 else "") for p in range(4)])
    known.assigned([0], range(4))
    with pytest.raises(SourceError, match=r"read of partition 1 is in the checkpoints of another run"):
        known.check()


def test_a_commit_says_which_partitions_are_in_a_state() -> None:
    known = kept()
    known.assigned([0], range(4))
    known.read([2])
    assert [known.note(p) for p in range(4)] == [IN_A_STATE, "", IN_A_STATE, ""]


def test_a_run_without_state_takes_what_it_is_given() -> None:
    known = KeptPartitions("Kafka source 'payments'", wait_s=50.0, clock=SimulatedClock())
    known.committed([committed(0, IN_A_STATE)])
    known.read([0])
    assert not known.assigned([], [0])
    assert known.revoked({0: 8}) == {}
    assert known.note(0) == ""
    known.check()
