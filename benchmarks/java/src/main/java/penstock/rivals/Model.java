package penstock.rivals;

import ai.onnxruntime.OnnxTensor;
import ai.onnxruntime.OrtEnvironment;
import ai.onnxruntime.OrtException;
import ai.onnxruntime.OrtSession;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.FloatBuffer;
import java.nio.file.Path;
import java.util.Map;

/** The ONNX model on one thread. Not for use by several threads: rows go into one buffer. */
final class Model implements AutoCloseable {
    private final OrtEnvironment environment = OrtEnvironment.getEnvironment();
    private final OrtSession session;
    private final String input;
    private final int columns;
    private final FloatBuffer rows;

    Model(Path file, int columns, int rowsMax) throws OrtException {
        try (OrtSession.SessionOptions options = new OrtSession.SessionOptions()) {
            options.setIntraOpNumThreads(1);
            options.setInterOpNumThreads(1);
            session = environment.createSession(file.toString(), options);
        }
        input = session.getInputNames().iterator().next();
        this.columns = columns;
        // Direct and in native order: ONNX Runtime then reads it where it is.
        rows = ByteBuffer.allocateDirect(rowsMax * columns * Float.BYTES)
                .order(ByteOrder.nativeOrder())
                .asFloatBuffer();
    }

    /** Where the rows of the next call go, one after the other. */
    FloatBuffer rows() {
        return rows;
    }

    /** The scores of the rows that were put, one each; the buffer is empty afterwards. */
    FloatBuffer score(int count) throws OrtException {
        rows.flip();
        try (OnnxTensor tensor = OnnxTensor.createTensor(environment, rows, new long[] {count, columns});
                OrtSession.Result result = session.run(Map.of(input, tensor))) {
            return ((OnnxTensor) result.get(result.size() - 1)).getFloatBuffer();
        } finally {
            rows.clear();
        }
    }

    @Override
    public void close() throws OrtException {
        session.close();
    }
}
