package gillnet.flink;

import gillnet.host.ChunkBuilder;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import org.apache.flink.api.common.typeinfo.PrimitiveArrayTypeInfo;
import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.connector.kafka.source.reader.deserializer.KafkaRecordDeserializationSchema;
import org.apache.flink.util.Collector;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.Headers;

/** A Kafka record to its bytes in a chunk: nothing of it is parsed here. */
final class RecordReader implements KafkaRecordDeserializationSchema<byte[]> {
    private static final long serialVersionUID = 1L;

    @Override
    public void deserialize(ConsumerRecord<byte[], byte[]> record, Collector<byte[]> out) {
        out.collect(ChunkBuilder.record(record.partition(), record.offset(), record.key(), headers(record.headers()), record.value()));
    }

    private static byte[] headers(Headers headers) {
        Header[] all = headers.toArray();
        if (all.length == 0) {
            return null;
        }
        int size = 2;
        byte[][] names = new byte[all.length][];
        for (int i = 0; i < all.length; i++) {
            names[i] = all[i].key().getBytes(StandardCharsets.UTF_8);
            size += 2 + names[i].length + 4 + (all[i].value() == null ? 0 : all[i].value().length);
        }
        ByteBuffer out = ByteBuffer.allocate(size).order(ByteOrder.LITTLE_ENDIAN).putShort((short) all.length);
        for (int i = 0; i < all.length; i++) {
            byte[] value = all[i].value();
            out.putShort((short) names[i].length).put(names[i]).putInt(value == null ? -1 : value.length);
            if (value != null) {
                out.put(value);
            }
        }
        return out.array();
    }

    @Override
    public TypeInformation<byte[]> getProducedType() {
        return PrimitiveArrayTypeInfo.BYTE_PRIMITIVE_ARRAY_TYPE_INFO;
    }
}
