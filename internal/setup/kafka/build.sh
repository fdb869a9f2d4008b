# Kafka from Maven Central in a small Debian with a Java runtime, laid out as in the official image: what starts one starts the other.
# The jars are fetched here and not in a container, which lacks the certificates and settings of this machine.
recipe=$(dirname "${BASH_SOURCE[0]}")
. "$recipe/../debian.sh"

mvn -q -B -f "$recipe/pom.xml" -Dkafka="$VERSION" dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$PWD/libs" >mvn.log 2>&1 &
jars=$!
debian trixie openjdk-21-jre-headless
wait $jars || { tail -n 20 mvn.log >&2; exit 2; }

kafka=rootfs/opt/kafka
mkdir -p $kafka/{bin,config} rootfs/var/lib/kafka/data
mv libs $kafka/libs
cp "$recipe/log4j2.yaml" $kafka/config
install "$recipe/run-class.sh" $kafka/bin/kafka-run-class.sh
install "$recipe/train.sh" rootfs/train.sh
while read -r script class; do
	printf '#!/bin/sh\nexec /opt/kafka/bin/kafka-run-class.sh %s "$@"\n' "$class" >$kafka/bin/$script.sh
	chmod +x $kafka/bin/$script.sh
done <<-END
	kafka-server-start kafka.Kafka
	kafka-storage kafka.tools.StorageTool
	kafka-topics org.apache.kafka.tools.TopicCommand
	kafka-configs kafka.admin.ConfigCommand
	kafka-consumer-groups org.apache.kafka.tools.consumer.group.ConsumerGroupCommand
	kafka-console-producer org.apache.kafka.tools.ConsoleProducer
	kafka-console-consumer org.apache.kafka.tools.consumer.ConsoleConsumer
END
chown -R 1000:1000 $kafka rootfs/var/lib/kafka

tar -C rootfs -c . | docker import --change 'USER 1000' - "$TAG-untrained" >/dev/null
trap 'docker rm -f "${trained:-}" >/dev/null 2>&1 || true; docker rmi "$TAG-untrained" >/dev/null' EXIT
trained=$(docker create --network none "$TAG-untrained" sh /train.sh)
docker start -a "$trained" >train.log 2>&1 || { tail -n 20 train.log >&2; exit 2; }
docker commit --change 'CMD ["/bin/bash"]' --change 'VOLUME /var/lib/kafka/data' "$trained" "$TAG" >/dev/null
