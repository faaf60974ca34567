package penstock.rivals;

import java.nio.FloatBuffer;
import java.time.Duration;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.ConsumerRecords;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/**
 * The loop that a good engineer writes by hand in Java: a micro-batch and a transaction per poll. It handles no rebalance, no
 * bad record and no abort, which real code has to.
 */
public final class HandWrittenLoop {
    private HandWrittenLoop() {}

    public static void main(String[] arguments) throws Exception {
        Given given = Given.read(arguments);
        EventReader reader = new EventReader(given.events());
        PredictionWriter writer = new PredictionWriter(given.predictions());
        int columns = given.events().getFields().size();
        try (Model model = new Model(given.model(), columns, given.batchRows());
                KafkaConsumer<byte[], byte[]> consumer = new KafkaConsumer<>(
                        consuming(given), new ByteArrayDeserializer(), new ByteArrayDeserializer());
                KafkaProducer<byte[], byte[]> producer =
                        new KafkaProducer<>(producing(given), new ByteArraySerializer(), new ByteArraySerializer())) {
            if (given.exactlyOnce()) {
                producer.initTransactions();
            }
            consumer.subscribe(List.of(given.input()));
            while (true) {
                ConsumerRecords<byte[], byte[]> records = consumer.poll(Duration.ofMillis(100));
                if (records.isEmpty()) {
                    continue;
                }
                for (ConsumerRecord<byte[], byte[]> record : records) {
                    reader.read(record.value(), model.rows());
                }
                FloatBuffer scores = model.score(records.count());
                if (given.exactlyOnce()) {
                    producer.beginTransaction();
                }
                int row = 0;
                Map<TopicPartition, OffsetAndMetadata> ends = new HashMap<>();
                for (TopicPartition partition : records.partitions()) {
                    List<ConsumerRecord<byte[], byte[]>> part = records.records(partition);
                    for (ConsumerRecord<byte[], byte[]> record : part) {
                        byte[] value = writer.write(
                                record.topic(), record.partition(), record.offset(), record.timestamp(), scores.get(row++));
                        producer.send(new ProducerRecord<>(given.output(), record.partition(), record.key(), value));
                    }
                    ends.put(partition, new OffsetAndMetadata(part.get(part.size() - 1).offset() + 1));
                }
                if (given.exactlyOnce()) {
                    producer.sendOffsetsToTransaction(ends, consumer.groupMetadata());
                    producer.commitTransaction();
                } else {
                    producer.flush();
                    consumer.commitAsync(ends, null);
                }
            }
        }
    }

    private static Properties consuming(Given given) {
        Properties found = new Properties();
        found.put(ConsumerConfig.BOOTSTRAP_SERVERS_CONFIG, given.servers());
        found.put(ConsumerConfig.GROUP_ID_CONFIG, given.group());
        found.put(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG, "earliest");
        found.put(ConsumerConfig.ENABLE_AUTO_COMMIT_CONFIG, false);
        found.put(ConsumerConfig.ISOLATION_LEVEL_CONFIG, "read_committed");
        found.put(ConsumerConfig.MAX_POLL_RECORDS_CONFIG, given.batchRows());
        return found;
    }

    private static Properties producing(Given given) {
        Properties found = new Properties();
        found.put(ProducerConfig.BOOTSTRAP_SERVERS_CONFIG, given.servers());
        found.put(ProducerConfig.BATCH_SIZE_CONFIG, 128 << 10);
        found.put(ProducerConfig.LINGER_MS_CONFIG, 5); // a commit or a flush does not wait for it
        if (given.exactlyOnce()) {
            found.put(ProducerConfig.TRANSACTIONAL_ID_CONFIG, given.group());
        }
        return found;
    }
}
