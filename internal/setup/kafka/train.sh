#!/bin/sh
# Runs a broker once, with a message through it, to put the classes that it has loaded into an archive: the next one starts in half the time.
set -eu
bin=/opt/kafka/bin
conf=/tmp/train.properties
cat >$conf <<-END
	process.roles=broker,controller
	node.id=1
	controller.quorum.voters=1@127.0.0.1:9093
	controller.listener.names=CONTROLLER
	listeners=PLAINTEXT://127.0.0.1:9092,CONTROLLER://127.0.0.1:9093
	log.dirs=/tmp/train
	offsets.topic.num.partitions=1
	offsets.topic.replication.factor=1
END
export KAFKA_JVM_PERFORMANCE_OPTS="-XX:+UseSerialGC -XX:TieredStopAtLevel=1"
$bin/kafka-storage.sh format -t b21uaWJ1cy10cmFpbmVyIQ -c $conf
KAFKA_JVM_PERFORMANCE_OPTS="$KAFKA_JVM_PERFORMANCE_OPTS -XX:ArchiveClassesAtExit=/opt/kafka/kafka.jsa" $bin/kafka-server-start.sh $conf &
broker=$!
until $bin/kafka-topics.sh --bootstrap-server 127.0.0.1:9092 --create --if-not-exists --topic train --partitions 1; do
	kill -0 $broker # set -e: it has ended. A slow machine may take longer than the command waits
done
echo words | $bin/kafka-console-producer.sh --bootstrap-server 127.0.0.1:9092 --topic train
$bin/kafka-console-consumer.sh --bootstrap-server 127.0.0.1:9092 --topic train --from-beginning --max-messages 1 --timeout-ms 60000
kill $broker
wait $broker || [ $? = 143 ] # the end by a signal
rm -r /tmp/train $conf
test -s /opt/kafka/kafka.jsa
