"""Kafka through librdkafka; the only folder that imports confluent_kafka."""
