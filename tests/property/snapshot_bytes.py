"""Snapshots taken apart, and put together so that checksums and lengths fit whatever is inside."""

from __future__ import annotations

import pyarrow as pa

HEADER = 32
"""Bytes before the body of a snapshot of version 1."""
_MASK = 2**64 - 1


def checksum(*parts: bytes) -> int:
    """FNV-1a over words, as `crates/gillnet-kernel/src/bytes.rs` has it."""
    total = 0xCBF29CE484222325
    for part in parts:
        for at in range(0, len(part), 8):
            total = ((total ^ int.from_bytes(part[at : at + 8].ljust(8, b"\0"), "little")) * 0x100000001B3) & _MASK
            total = (total << 23 | total >> 41) & _MASK
    return total


def parts_of(snapshot: bytes) -> list[tuple[str, int, bytes]]:
    """Return name, version and bytes of each part of a snapshot of version 2."""
    assert snapshot[:12] == b"GILLSNAP" + (2).to_bytes(4, "little")
    zstd, parts, at = pa.Codec("zstd"), [], 12
    while at < len(snapshot):
        name_length = int.from_bytes(snapshot[at : at + 8], "little")
        name, version = snapshot[at + 8 : at + 8 + name_length].decode(), snapshot[at + 8 + name_length]
        at, chunks = at + 9 + name_length, []
        while length := int.from_bytes(snapshot[at : at + 4], "little"):
            stored = int.from_bytes(snapshot[at + 4 : at + 8], "little")
            chunk = snapshot[at + 16 : at + 16 + stored]
            chunks.append(chunk if stored == length else zstd.decompress(chunk, length, asbytes=True))
            at += 16 + stored
        at += 16
        parts.append((name, version, b"".join(chunks)))
    return parts


def plain(snapshot: bytes) -> bytes:
    """Return the same state as a snapshot of version 1, where every byte is as its part wrote it."""
    (_, _, plan), *parts = parts_of(snapshot)
    body = [plan]
    for name, version, part in parts:
        body += [
            len(name).to_bytes(8, "little"),
            name.encode(),
            bytes([version]),
            len(part).to_bytes(8, "little"),
            part,
        ]
    return sealed(b"GILLSNAP" + (1).to_bytes(4, "little") + bytes(HEADER - 12) + b"".join(body))


def sealed(snapshot: bytes) -> bytes:
    """Make length and checksum of a snapshot of version 1 fit its body."""
    body = snapshot[HEADER:]
    head = snapshot[:16] + len(body).to_bytes(8, "little")
    return head + checksum(head, body).to_bytes(8, "little") + body
