"""Apache Kafka: source, sink and topics. The only home of confluent-kafka (librdkafka).

At-least-once: a source commits only what the run says it has processed, a sink says that it is flushed only when every
record is acknowledged by all in-sync replicas.
"""

from gillnet.connectors.kafka.sink import KafkaSink
from gillnet.connectors.kafka.source import KafkaSource, StartPosition
from gillnet.connectors.kafka.topics import count_records, ensure_topics

__all__ = ["KafkaSink", "KafkaSource", "StartPosition", "count_records", "ensure_topics"]
