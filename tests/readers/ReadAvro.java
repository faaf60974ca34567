import java.io.ByteArrayInputStream;
import java.io.File;
import java.util.Base64;
import java.util.Scanner;
import org.apache.avro.Schema;
import org.apache.avro.generic.GenericDatumReader;
import org.apache.avro.io.BinaryDecoder;
import org.apache.avro.io.DecoderFactory;

/** Reads messages (base64, a line each, on standard input) written with one schema as another; prints them as JSON. */
public class ReadAvro {
  public static void main(String[] arguments) throws Exception {
    Schema writer = new Schema.Parser().parse(new File(arguments[0]));
    Schema reader = new Schema.Parser().parse(new File(arguments[1]));
    GenericDatumReader<Object> datums = new GenericDatumReader<>(writer, reader);
    Scanner lines = new Scanner(System.in);
    while (lines.hasNextLine()) {
      ByteArrayInputStream message = new ByteArrayInputStream(Base64.getDecoder().decode(lines.nextLine()));
      BinaryDecoder decoder = DecoderFactory.get().directBinaryDecoder(message, null);
      System.out.println(datums.read(null, decoder));
      if (message.available() > 0) throw new IllegalStateException("bytes are left");
    }
  }
}
