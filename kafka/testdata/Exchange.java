// Exchange writes and reads messages with the Java client, for tests of what it and the adapter make of each other's.
//
//     java -cp 'libs/*' Exchange.java write host:port <messages
//     java -cp 'libs/*' Exchange.java read host:port topic=count ... >messages
//
// A message is a line of words: topic, partition, key, value, and for each header its name and its value. The partition is - where the client is to
// find it; what is null is -, bytes are a colon and their base64.

import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Base64;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Future;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.PartitionInfo;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.Headers;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

public class Exchange {
    public static void main(String[] args) throws Exception {
        Map<String, Object> config = Map.of("bootstrap.servers", args[1]);
        if (args[0].equals("write")) {
            write(config);
            return;
        }
        for (int i = 2; i < args.length; i++) {
            String[] topic = args[i].split("=");
            read(config, topic[0], Integer.parseInt(topic[1]));
        }
    }

    static void write(Map<String, Object> config) throws Exception {
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.US_ASCII));
        List<Future<RecordMetadata>> sent = new ArrayList<>();
        try (KafkaProducer<byte[], byte[]> producer = new KafkaProducer<>(config, new ByteArraySerializer(), new ByteArraySerializer())) {
            for (String line = in.readLine(); line != null; line = in.readLine()) {
                String[] word = line.split(" ");
                Integer partition = word[1].equals("-") ? null : Integer.valueOf(word[1]);
                ProducerRecord<byte[], byte[]> record = new ProducerRecord<>(word[0], partition, bytes(word[2]), bytes(word[3]));
                for (int i = 4; i < word.length; i += 2) {
                    record.headers().add(new String(bytes(word[i]), StandardCharsets.UTF_8), bytes(word[i + 1]));
                }
                sent.add(producer.send(record));
            }
            for (Future<RecordMetadata> f : sent) {
                f.get();
            }
        }
    }

    static void read(Map<String, Object> config, String topic, int count) {
        try (KafkaConsumer<byte[], byte[]> consumer = new KafkaConsumer<>(config, new ByteArrayDeserializer(), new ByteArrayDeserializer())) {
            List<TopicPartition> all = new ArrayList<>();
            for (PartitionInfo p : consumer.partitionsFor(topic)) {
                all.add(new TopicPartition(topic, p.partition()));
            }
            consumer.assign(all);
            consumer.seekToBeginning(all);
            long end = System.nanoTime() + Duration.ofSeconds(30).toNanos();
            for (int n = 0; n < count; ) {
                for (ConsumerRecord<byte[], byte[]> r : consumer.poll(Duration.ofSeconds(1))) {
                    n++;
                    System.out.println(topic + " " + r.partition() + " " + word(r.key()) + " " + word(r.value()) + words(r.headers()));
                }
                if (System.nanoTime() > end) {
                    throw new IllegalStateException(n + " of " + count + " messages of " + topic + " came within 30 s");
                }
            }
        }
    }

    static String words(Headers headers) {
        StringBuilder all = new StringBuilder();
        for (Header h : headers) {
            all.append(' ').append(word(h.key().getBytes(StandardCharsets.UTF_8))).append(' ').append(word(h.value()));
        }
        return all.toString();
    }

    static String word(byte[] b) {
        return b == null ? "-" : ":" + Base64.getEncoder().encodeToString(b);
    }

    static byte[] bytes(String word) {
        return word.equals("-") ? null : Base64.getDecoder().decode(word.substring(1));
    }
}
