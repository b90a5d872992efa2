package gillnet.flink;

import java.io.IOException;
import java.io.InputStream;
import java.io.Serializable;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Properties;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.JsonNode;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.ObjectMapper;

/** What {@code gillnet flink} writes into the job's jar as {@code gillnet/job.json}. */
record Settings(
        String name,
        byte[] program,
        Map<String, Source> sources,
        Sinks sinks,
        int shards,
        int batchRecords,
        long lingerMs,
        long tickMs,
        long checkpointIntervalMs)
        implements Serializable {
    static final String PLACE = "/gillnet/job.json";

    /** A stream's topic; {@code start} is where it is read from without a checkpoint: earliest, latest or committed. */
    record Source(int number, String topic, String start, int partitions, boolean bounded, long delayUs, Properties kafka) implements Serializable {}

    /** Topics by output, and how they are written; outputs without a topic are not. */
    record Sinks(Map<String, String> topics, boolean exactlyOnce, String transactionalIdPrefix, Properties kafka) implements Serializable {}

    static Settings read() throws IOException {
        try (InputStream json = Settings.class.getResourceAsStream(PLACE)) {
            if (json == null) {
                throw new IOException("this jar has no job in it (" + PLACE + "): make one with `gillnet flink package`");
            }
            ObjectMapper mapper = new ObjectMapper();
            JsonNode read = mapper.readTree(json);
            Map<String, Source> sources = new LinkedHashMap<>();
            for (JsonNode stream : read.get("sources")) {
                sources.put(stream.get("stream").asText(), source(stream, sources.size()));
            }
            JsonNode sinks = read.get("sinks");
            return new Settings(
                    read.get("name").asText(),
                    mapper.writeValueAsBytes(read.get("program")),
                    sources,
                    new Sinks(
                            texts(sinks.get("topics")),
                            sinks.get("exactly_once").asBoolean(),
                            sinks.get("transactional_id_prefix").asText(),
                            properties(sinks.get("kafka"))),
                    read.get("shards").asInt(),
                    read.get("batch_records").asInt(),
                    read.get("linger_ms").asLong(),
                    read.get("tick_ms").asLong(),
                    read.get("checkpoint_interval_ms").asLong());
        }
    }

    private static Source source(JsonNode stream, int number) {
        return new Source(
                number,
                stream.get("topic").asText(),
                stream.get("start").asText(),
                stream.get("partitions").asInt(),
                stream.get("bounded").asBoolean(),
                stream.get("watermark_delay_us").asLong(),
                properties(stream.get("kafka")));
    }

    private static Properties properties(JsonNode object) {
        Properties properties = new Properties();
        texts(object).forEach(properties::setProperty);
        return properties;
    }

    private static Map<String, String> texts(JsonNode object) {
        Map<String, String> texts = new LinkedHashMap<>();
        object.properties().forEach(entry -> texts.put(entry.getKey(), entry.getValue().asText()));
        return texts;
    }
}
