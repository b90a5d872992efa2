"""Sources and sinks: Kafka, files, memory. Each system's client library is loaded by its own module only."""
