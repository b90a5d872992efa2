"""Pulsar without a broker: URIs, settings, places, what a message carries, and what is acknowledged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import gillnet as gn
from gillnet.app import load_config
from gillnet.app.config import RunConfig
from gillnet.connectors.pulsar import EventTimeField
from gillnet.connectors.pulsar.acknowledging import CumulativeAcks, SingleAcks
from gillnet.connectors.pulsar.client import check_settings
from gillnet.connectors.pulsar.places import ids_of, key_and_properties, place_of, stretch_of
from gillnet.connectors.uri import open_sink, open_source
from gillnet.core.errors import ConfigurationError
from gillnet.lifecycle.lateness.opening import open_bounded

TOPIC = "pulsar://127.0.0.1:9/t/n/p"


@pytest.mark.parametrize(
    ("uri", "told"),
    [
        ("pulsar://localhost:6650", "'' is not tenant/namespace/topic; write it after the address, as pulsar://"),
        ("pulsar://localhost:6650/payments", "'payments' is not tenant/namespace/topic"),
        ("pulsar+ssl://localhost:6651/a/b/c/d", "'a/b/c/d' is not tenant/namespace/topic"),
        ("pulsar:///t/n/p", "the broker's address is missing"),
        (f"{TOPIC}?subscripton=x", "the parameter 'subscripton' is unknown; there are: subscription"),
        (f"{TOPIC}?until_end=yes", "neither true nor false"),
        (f"{TOPIC}?partition=one", "no number of a partition"),
        (f"{TOPIC}?type=shared", "the subscription type 'shared' is unknown; use exclusive, failover or key_shared"),
        (f"{TOPIC}?start=now", "start='now' is unknown"),
        (f"{TOPIC}?start=latest&type=key_shared", "would move a key_shared subscription"),
        (f"{TOPIC}?until_end=true&type=failover", "until_end=true cannot be told of a failover subscription"),
        (f"{TOPIC}?event_time=amount", "no Timestamp column of that name"),
        ("pulsar://me:secret@h:1/t/n/p", "must not hold a user or password"),
    ],
)
def test_a_wrong_source_says_what_is_right(uri: str, told: str) -> None:
    schema = gn.Schema(id=gn.String(), amount=gn.Decimal(2))
    with pytest.raises(ConfigurationError) as caught:
        open_source(uri, stream="s", schema=schema)
    assert told in str(caught.value)
    assert "secret" not in str(caught.value)


def test_commands_that_read_a_stream_again_refuse_a_subscription() -> None:
    with pytest.raises(ConfigurationError, match=r"is read through a subscription.*give the --history"):
        open_bounded("payments", TOPIC, schema=None, kafka={})


def test_a_sink_has_no_parameters() -> None:
    with pytest.raises(ConfigurationError, match="the parameter 'type' is unknown; there are: none"):
        open_sink(f"{TOPIC}?type=exclusive")


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"tokn": "t"}, r"no setting 'tokn'.*did you mean 'token'"),
        ({"token": "t", "token_file": "f"}, "both token and token_file"),
        ({"token_file": "/nowhere/token"}, "token_file /nowhere/token: it cannot be read: No such file"),
        ({"tls_allow_insecure": "1"}, "tls_allow_insecure is neither true nor false"),
    ],
)
def test_wrong_settings(settings: dict[str, str], told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        check_settings(settings, what="Pulsar source")


def test_a_token_comes_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("a.b.c\n")
    assert check_settings({"token_file": str(file)}, what="w") == {"token": "a.b.c"}
    file.write_text("\n")
    with pytest.raises(ConfigurationError, match="it is empty"):
        check_settings({"token_file": str(file)}, what="w")


def test_a_configuration_keeps_the_settings_of_each_system_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PULSAR_TOKEN", "a.b.c")
    file = tmp_path / "gillnet.toml"
    file.write_text('[pulsar]\ntoken = "${PULSAR_TOKEN}"\ntls_allow_insecure = true\n[kafka]\n"client.id" = "k"\n')
    config = load_config(file).changed(settings=["pulsar.admin_url=http://h:8080"])
    assert config.connection("pulsar+ssl://h:1/t/n/p") == {
        "token": "a.b.c",
        "tls_allow_insecure": "true",
        "admin_url": "http://h:8080",
    }
    assert config.connection("kafka://h:1/t") == {"client.id": "k"}
    assert "a.b.c" not in repr(config)
    with pytest.raises(ConfigurationError, match=r"'pulsr.token' is unknown"):
        RunConfig().changed(settings=["pulsr.token=x"])


# Places

ids = st.tuples(st.integers(0, 2**62), st.integers(0, 2**40 - 1), st.integers(-1, 2**24 - 2))


@given(ids, ids)
def test_places_keep_the_order_of_message_ids(first: tuple[int, int, int], second: tuple[int, int, int]) -> None:
    assert (place_of(*first) < place_of(*second)) == (first < second)
    assert ids_of(place_of(*first)) == first
    if first < second:
        assert place_of(*first) + 1 <= place_of(*second)


def test_a_stretch_has_a_run_for_each_change_of_partition() -> None:
    assert stretch_of([5, 9, 3, 10], [0, 0, 1, 0]) == [(0, 5, 10), (1, 3, 4), (0, 10, 11)]


def test_bytes_that_are_no_text_are_written_as_text() -> None:
    assert key_and_properties(b"k", []) == ("k", None)
    assert key_and_properties(None, [("a", b"1"), ("b", b"\xff"), ("c", None)]) == (
        None,
        {"a": "1", "b@base64": "/w==", "c@null": ""},
    )
    assert key_and_properties(b"\xff", []) == ("/w==", {"gillnet.key@base64": "/w=="})


@pytest.mark.parametrize(
    ("unit", "value", "told"),
    [
        ("s", b"{}", b'{"ts":1767225600}'),
        ("ms", b' { "a": 1}', b'{"ts":1767225600123, "a": 1}'),
        ("us", b'{"a":1}', b'{"ts":1767225600123000,"a":1}'),
        ("rfc3339", b"{ }", b'{"ts":"2026-01-01T00:00:00.123000+00:00" }'),
        ("ms", b"[]", b"[]"),
        ("ms", b"", b""),
        ("ms", b"\xff", b"\xff"),
    ],
)
def test_the_message_s_event_time_is_put_into_the_record(unit: str, value: bytes, told: bytes) -> None:
    assert EventTimeField(name="ts", unit=unit).put(value, 1_767_225_600_123) == told
    assert EventTimeField(name="ts", unit=unit).put(value, 0) == value


# Acknowledging


class Id:
    def __init__(self, entry: int, index: int = -1) -> None:
        self.ids = (1, entry, index)

    def ledger_id(self) -> int:
        return self.ids[0]

    def entry_id(self) -> int:
        return self.ids[1]


class Acked:
    def __init__(self) -> None:
        self.ids: list[Any] = []

    def acknowledge_cumulative(self, message_id: Id) -> None:
        self.ids.append(message_id.ids)

    acknowledge = acknowledge_cumulative


def test_a_mark_is_acknowledged_once_and_never_beyond() -> None:
    acks, told = CumulativeAcks(), Acked()
    for entry in range(3):
        acks.read(0, place_of(1, entry, -1), Id(entry))
    mark = acks.mark({0: place_of(1, 2, -1) + 1})
    acks.read(0, place_of(1, 3, -1), Id(3))
    acks.settle(mark, told)
    acks.settle(mark, told)
    acks.settle({7: 1}, told)
    assert told.ids == [(1, 2, -1)]


def test_with_checkpoints_the_entry_of_the_last_record_stays() -> None:
    acks, told = CumulativeAcks(keep_last=True), Acked()
    acks.seen(0, place_of(1, 0, -1), Id(0))
    acks.settle(acks.mark({0: place_of(1, 0, -1) + 1}), told)
    assert told.ids == []
    for entry, index in [(1, 0), (1, 1), (2, 0), (2, 1)]:
        acks.read(0, place_of(1, entry, index), Id(entry, index))
    acks.settle(acks.mark({0: place_of(1, 2, 1) + 1}), told)
    assert told.ids == [(1, 1, 1)]


def test_single_messages_are_acknowledged_up_to_the_mark_and_known_until_then() -> None:
    acks, told = SingleAcks(), Acked()
    assert [acks.read(0, n, Id(n)) for n in (1, 2, 2)] == [True, True, False]
    mark = acks.mark({})
    assert acks.read(1, 2, Id(3))
    acks.settle(mark, told)
    assert (told.ids, acks.waiting) == ([(1, 1, -1), (1, 2, -1)], 1)
    assert acks.read(0, 2, Id(2))
