"""The hosts of a plan, independent of each other: embedded, and later Flink, Spark and batch."""
