"""The payments benchmark: JSON payments from Kafka → features per card → XGBoost → Kafka, for several contenders."""
