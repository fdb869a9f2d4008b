// Package kafka is the adapter for Kafka, kafka://host:9092.
package kafka
