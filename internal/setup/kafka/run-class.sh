#!/bin/sh
# Runs a class of Kafka's with the settings that the scripts of its own distribution take: KAFKA_HEAP_OPTS, KAFKA_JVM_PERFORMANCE_OPTS,
# KAFKA_LOG4J_OPTS, KAFKA_OPTS. The jars are named in a fixed order: an archive of classes fits only the class path that it was made with.
libs=$(printf ':%s' /opt/kafka/libs/*.jar)
exec java ${KAFKA_HEAP_OPTS:--Xmx256m} ${KAFKA_JVM_PERFORMANCE_OPTS:-} \
	${KAFKA_LOG4J_OPTS:--Dlog4j2.configurationFile=/opt/kafka/config/log4j2.yaml} ${KAFKA_OPTS:-} -cp "${libs#:}" "$@"
