package penstock.rivals;

import java.io.IOException;
import java.io.Reader;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Properties;
import org.apache.avro.Schema;

/** What the bench tells a contestant: servers, group, topics, delivery, and the files of model and schemas. */
record Given(
        String servers,
        String group,
        String input,
        String output,
        boolean exactlyOnce,
        int batchRows,
        Path model,
        Schema events,
        Schema predictions,
        Path state) {

    static Given read(String[] arguments) throws IOException {
        Properties found = new Properties();
        try (Reader file = Files.newBufferedReader(Path.of(arguments[0]))) {
            found.load(file);
        }
        return new Given(
                found.getProperty("servers"),
                found.getProperty("group"),
                found.getProperty("input"),
                found.getProperty("output"),
                found.getProperty("delivery").equals("exactly_once"),
                Integer.parseInt(found.getProperty("batch_rows")),
                Path.of(found.getProperty("model")),
                schema(found.getProperty("events")),
                schema(found.getProperty("predictions")),
                Path.of(found.getProperty("state")));
    }

    private static Schema schema(String file) throws IOException {
        return new Schema.Parser().parse(Path.of(file).toFile());
    }
}
