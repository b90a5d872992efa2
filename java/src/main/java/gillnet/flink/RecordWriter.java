package gillnet.flink;

import gillnet.host.OutRecords;
import java.util.List;
import java.util.Map;
import org.apache.flink.api.common.serialization.SerializationSchema;
import org.apache.flink.api.java.tuple.Tuple2;
import org.apache.flink.connector.kafka.sink.KafkaRecordSerializationSchema;
import org.apache.flink.connector.kafka.sink.KafkaRecordSerializationSchema.KafkaSinkContext;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.header.internals.RecordHeaders;

/** A record of an output to one of its topic. */
final class RecordWriter implements KafkaRecordSerializationSchema<Tuple2<Integer, byte[]>> {
    private static final long serialVersionUID = 1L;
    private final Map<String, String> topics;
    private final List<String> outputs;
    private transient String[] byNumber;

    RecordWriter(Map<String, String> topics, List<String> outputs) {
        this.topics = topics;
        this.outputs = outputs;
    }

    @Override
    public void open(SerializationSchema.InitializationContext context, KafkaSinkContext sinkContext) {
        byNumber = outputs.stream().map(topics::get).toArray(String[]::new);
    }

    @Override
    public ProducerRecord<byte[], byte[]> serialize(Tuple2<Integer, byte[]> record, KafkaSinkContext context, Long timestamp) {
        OutRecords.Content content = OutRecords.content(record.f1);
        RecordHeaders headers = new RecordHeaders();
        content.headers().forEach(header -> headers.add(header.name(), header.value()));
        return new ProducerRecord<>(byNumber[record.f0], null, null, content.key(), content.value(), headers);
    }
}
