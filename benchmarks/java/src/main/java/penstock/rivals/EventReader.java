package penstock.rivals;

import java.io.IOException;
import java.nio.FloatBuffer;
import org.apache.avro.Schema;
import org.apache.avro.generic.GenericDatumReader;
import org.apache.avro.generic.GenericRecord;
import org.apache.avro.io.BinaryDecoder;
import org.apache.avro.io.DecoderFactory;

/** Avro's generic reader, with record and decoder used again, as its documentation advises. */
final class EventReader {
    private static final int HEADER_BYTES = 10; // single-object encoding: marker and fingerprint

    private final GenericDatumReader<GenericRecord> reader;
    private final int fields;
    private BinaryDecoder decoder;
    private GenericRecord record;

    EventReader(Schema schema) {
        reader = new GenericDatumReader<>(schema);
        fields = schema.getFields().size();
    }

    /** Puts the record's numbers behind what is in the buffer. */
    void read(byte[] payload, FloatBuffer row) throws IOException {
        decoder = DecoderFactory.get().binaryDecoder(payload, HEADER_BYTES, payload.length - HEADER_BYTES, decoder);
        record = reader.read(record, decoder);
        for (int field = 0; field < fields; field++) {
            row.put(((Double) record.get(field)).floatValue());
        }
    }
}
