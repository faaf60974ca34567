package penstock.rivals;

import ai.onnxruntime.OrtException;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.util.Properties;
import java.util.concurrent.CountDownLatch;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.processor.api.FixedKeyProcessor;
import org.apache.kafka.streams.processor.api.FixedKeyProcessorContext;
import org.apache.kafka.streams.processor.api.FixedKeyRecord;
import org.apache.kafka.streams.processor.api.RecordMetadata;

/** A Kafka Streams application as its documentation shows: a topology with a processor that scores record by record. */
public final class StreamsApp {
    private StreamsApp() {}

    public static void main(String[] arguments) throws Exception {
        Given given = Given.read(arguments);
        StreamsBuilder builder = new StreamsBuilder();
        builder.stream(given.input(), Consumed.with(Serdes.ByteArray(), Serdes.ByteArray()))
                .processValues(() -> new Scoring(given))
                .to(given.output(), Produced.with(Serdes.ByteArray(), Serdes.ByteArray()));
        KafkaStreams streams = new KafkaStreams(builder.build(), settings(given));
        CountDownLatch ended = new CountDownLatch(1);
        streams.setUncaughtExceptionHandler((exception) -> {
            exception.printStackTrace();
            ended.countDown();
            return org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse
                    .SHUTDOWN_CLIENT;
        });
        Runtime.getRuntime().addShutdownHook(new Thread(streams::close));
        streams.start();
        ended.await();
        System.exit(1);
    }

    private static Properties settings(Given given) {
        Properties found = new Properties();
        found.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, given.servers());
        found.put(StreamsConfig.APPLICATION_ID_CONFIG, given.group());
        found.put(StreamsConfig.STATE_DIR_CONFIG, given.state().toString());
        found.put(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG, "earliest");
        found.put(
                StreamsConfig.PROCESSING_GUARANTEE_CONFIG,
                given.exactlyOnce() ? StreamsConfig.EXACTLY_ONCE_V2 : StreamsConfig.AT_LEAST_ONCE);
        return found;
    }

    private static final class Scoring implements FixedKeyProcessor<byte[], byte[], byte[]> {
        private final Given given;
        private EventReader reader;
        private PredictionWriter writer;
        private Model model;
        private FixedKeyProcessorContext<byte[], byte[]> context;

        Scoring(Given given) {
            this.given = given;
        }

        @Override
        public void init(FixedKeyProcessorContext<byte[], byte[]> context) {
            this.context = context;
            reader = new EventReader(given.events());
            writer = new PredictionWriter(given.predictions());
            try {
                model = new Model(given.model(), given.events().getFields().size(), 1);
            } catch (OrtException exception) {
                throw new IllegalStateException(exception);
            }
        }

        @Override
        public void process(FixedKeyRecord<byte[], byte[]> record) {
            RecordMetadata place = context.recordMetadata().orElseThrow();
            try {
                reader.read(record.value(), model.rows());
                float score = model.score(1).get(0);
                context.forward(record.withValue(
                        writer.write(place.topic(), place.partition(), place.offset(), record.timestamp(), score)));
            } catch (IOException exception) {
                throw new UncheckedIOException(exception);
            } catch (OrtException exception) {
                throw new IllegalStateException(exception);
            }
        }

        @Override
        public void close() {
            try {
                model.close();
            } catch (OrtException exception) {
                throw new IllegalStateException(exception);
            }
        }
    }
}
