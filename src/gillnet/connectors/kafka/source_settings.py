"""Settings of the source's consumer: those that Gillnet decides, and its defaults for the others."""

from __future__ import annotations

from typing import Any

RESERVED = {
    "bootstrap.servers": "give bootstrap_servers",
    "group.id": "give group",
    "enable.auto.commit": "offsets are committed only after the outputs are flushed",
    "enable.auto.offset.store": "offsets are committed only after the outputs are flushed",
    "auto.offset.reset": "give start",
    "enable.partition.eof": "give until_end",
}

DEFAULTS: dict[str, Any] = {
    "enable.auto.commit": "false",
    "enable.auto.offset.store": "false",
    # An offset that the broker no longer holds is an event to count and to say, not a jump in silence.
    "auto.offset.reset": "error",
    # With librdkafka's default of 1,000 ms a full local queue stops the fetcher for a second: 150-200,000 records/s at
    # most.
    "fetch.queue.backoff.ms": "2",
    "fetch.wait.max.ms": "100",
    # Memory: at most this many records per partition, or this many kB in all, wait in the local queue. A record larger
    # than fetch.message.max.bytes is still fetched (KIP-74: the first of a response always is), up to
    # receive.message.max.bytes.
    "queued.min.messages": "20000",
    "queued.max.messages.kbytes": "32768",
    "fetch.message.max.bytes": "1048576",
    "receive.message.max.bytes": "100000000",
    # A broker that has stopped without closing its connections is noticed after this time.
    "socket.timeout.ms": "10000",
}
