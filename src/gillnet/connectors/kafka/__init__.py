"""Apache Kafka: source, sink and topics. The only home of confluent-kafka (librdkafka).

At-least-once: a source commits only what the run says it has processed, a sink says that it is flushed only when every
record is acknowledged by all in-sync replicas. Exactly-once: `KafkaTransactions`.
"""

from gillnet.connectors.kafka.sink import KafkaSink
from gillnet.connectors.kafka.source import KafkaSource, StartPosition
from gillnet.connectors.kafka.topics import count_partitions, count_records, ensure_topics, newest_records
from gillnet.connectors.kafka.transactions import KafkaTransactions, TransactionalSink

__all__ = [
    "KafkaSink",
    "KafkaSource",
    "KafkaTransactions",
    "StartPosition",
    "TransactionalSink",
    "count_partitions",
    "count_records",
    "ensure_topics",
    "newest_records",
]
