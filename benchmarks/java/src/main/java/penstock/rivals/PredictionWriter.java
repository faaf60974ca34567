package penstock.rivals;

import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.util.List;
import java.util.Map;
import org.apache.avro.Schema;
import org.apache.avro.generic.GenericData;
import org.apache.avro.generic.GenericDatumWriter;
import org.apache.avro.generic.GenericRecord;
import org.apache.avro.io.BinaryEncoder;
import org.apache.avro.io.EncoderFactory;

/** Predictions with their lineage, of the same schema as Penstock's; records, buffer and encoder are used again. */
final class PredictionWriter {
    private final GenericDatumWriter<GenericRecord> writer;
    private final ByteArrayOutputStream bytes = new ByteArrayOutputStream(512);
    private final GenericRecord prediction;
    private final GenericRecord source;
    private BinaryEncoder encoder;

    PredictionWriter(Schema schema) {
        writer = new GenericDatumWriter<>(schema);
        prediction = withDefaults(schema);
        source = withDefaults(schema.getField("source").schema());
        GenericRecord model = withDefaults(schema.getField("model").schema());
        model.put("name", "bench");
        model.put("version", "1");
        model.put("digest", "f".repeat(64));
        source.put("cluster", "bench");
        prediction.put("source", source);
        prediction.put("model", model);
    }

    /** A record whose fields that came to the contract later hold their defaults. */
    private static GenericRecord withDefaults(Schema schema) {
        GenericRecord made = new GenericData.Record(schema);
        for (Schema.Field field : schema.getFields()) {
            if (field.hasDefaultValue()) {
                made.put(field.pos(), GenericData.get().getDefaultValue(field));
            }
        }
        return made;
    }

    byte[] write(String topic, int partition, long offset, long timestampMs, float score) throws IOException {
        source.put("topic", topic);
        source.put("partition", partition);
        source.put("offset", offset);
        source.put("timestamp_ms", timestampMs);
        prediction.put("outputs", Map.of("value", List.of((double) score)));
        prediction.put("predicted_at_ms", System.currentTimeMillis());
        bytes.reset();
        encoder = EncoderFactory.get().binaryEncoder(bytes, encoder);
        writer.write(prediction, encoder);
        encoder.flush();
        return bytes.toByteArray();
    }
}
