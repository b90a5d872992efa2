"""Apache Pulsar: source and sink. The only home of pulsar-client.

At-least-once: a source acknowledges only what the run says it has processed, a sink says that it is flushed only when the broker has
acknowledged every record. An exclusive subscription can be read again from a checkpoint, record for record.
"""

from gillnet.connectors.pulsar.event_time import EventTimeField
from gillnet.connectors.pulsar.sink import PulsarSink
from gillnet.connectors.pulsar.source import PulsarSource, StartPosition, SubscriptionType

__all__ = ["EventTimeField", "PulsarSink", "PulsarSource", "StartPosition", "SubscriptionType"]
