"""The doctor: what a senior engineer would do when state grows. Readings in, findings out.

`readings` says what is known of a run, whatever runs it; `gather` takes it from a place of checkpoints, `gather_flink` from
Flink's REST API; the rules look at readings alone, each at one thing; `diagnosis` puts what they find in the order in which to act.
"""

from gillnet.lifecycle.doctor.diagnosis import ON_FLINK, RULES, diagnose
from gillnet.lifecycle.doctor.findings import SEVERITIES, Finding, Severity
from gillnet.lifecycle.doctor.gather import gather
from gillnet.lifecycle.doctor.gather_flink import gather_flink, job_address
from gillnet.lifecycle.doctor.readings import Readings

__all__ = [
    "ON_FLINK",
    "RULES",
    "SEVERITIES",
    "Finding",
    "Readings",
    "Severity",
    "diagnose",
    "gather",
    "gather_flink",
    "job_address",
]
