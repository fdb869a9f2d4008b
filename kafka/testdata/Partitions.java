// Partitions prints where the Java client puts messages: the key, and its partition of 1, 3 and 12. To make partitions.txt again, with the client that
// `make setup` gets:
//
//     java -cp '../../build/clients/kafka/libs/*' Partitions.java >partitions.txt

import java.nio.charset.StandardCharsets;
import org.apache.kafka.clients.producer.internals.BuiltInPartitioner;

public class Partitions {
    public static void main(String[] args) {
        StringBuilder all = new StringBuilder();
        for (int i = 0; i < 1000; i++) {
            String key = key(i);
            byte[] b = key.getBytes(StandardCharsets.UTF_8);
            all.append(key);
            for (int n : new int[] {1, 3, 12}) {
                all.append('\t').append(BuiltInPartitioner.partitionForKey(b, n));
            }
            all.append('\n');
        }
        System.out.print(new String(all.toString().getBytes(StandardCharsets.UTF_8), StandardCharsets.UTF_8));
    }

    // Keys of all lengths modulo 4, some of them not ASCII.
    static String key(int i) {
        switch (i % 5) {
            case 0: return "order-" + i;
            case 1: return Integer.toString(i);
            case 2: return "Grüße-" + i * 7919;
            case 3: return "k".repeat(i % 37 + 1) + i;
            default: return "客户/" + i + "/☃";
        }
    }
}
