"""Flink, for who outgrows one machine: a cluster on loopback to try it on, and a client for the REST API of any cluster."""

from gillnet.runtimes.flink.local import (
    FLINK_VERSION,
    QUICK_START,
    SUSTAINED_LOAD,
    ClusterMemory,
    LocalFlink,
    fetch_flink,
)
from gillnet.runtimes.flink.rest import FlinkRest

__all__ = [
    "FLINK_VERSION",
    "QUICK_START",
    "SUSTAINED_LOAD",
    "ClusterMemory",
    "FlinkRest",
    "LocalFlink",
    "fetch_flink",
]
