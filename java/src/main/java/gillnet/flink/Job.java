package gillnet.flink;

import gillnet.host.Program;
import java.util.List;
import java.util.Map;
import java.util.stream.IntStream;
import org.apache.flink.api.common.eventtime.WatermarkStrategy;
import org.apache.flink.api.common.typeinfo.PrimitiveArrayTypeInfo;
import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.api.common.typeinfo.Types;
import org.apache.flink.api.java.tuple.Tuple2;
import org.apache.flink.connector.base.DeliveryGuarantee;
import org.apache.flink.connector.kafka.sink.KafkaSink;
import org.apache.flink.connector.kafka.source.KafkaSource;
import org.apache.flink.connector.kafka.source.KafkaSourceBuilder;
import org.apache.flink.connector.kafka.source.enumerator.initializer.OffsetsInitializer;
import org.apache.flink.streaming.api.datastream.DataStream;
import org.apache.flink.streaming.api.datastream.SingleOutputStreamOperator;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.util.OutputTag;
import org.apache.kafka.clients.consumer.OffsetResetStrategy;

/** A pipeline as a Flink job: sources → intakes → flows by shard → Kafka. */
public final class Job {
    private static final TypeInformation<Tuple2<Integer, byte[]>> NUMBERED =
            Types.TUPLE(Types.INT, PrimitiveArrayTypeInfo.BYTE_PRIMITIVE_ARRAY_TYPE_INFO);

    private Job() {}

    public static void main(String[] arguments) throws Exception {
        Settings settings = Settings.read();
        StreamExecutionEnvironment env = StreamExecutionEnvironment.getExecutionEnvironment();
        build(env, settings);
        env.execute(settings.name());
    }

    static void build(StreamExecutionEnvironment env, Settings settings) {
        // No operator keeps or changes what it was handed.
        env.getConfig().enableObjectReuse();
        env.setBufferTimeout(settings.lingerMs());
        if (!env.getCheckpointConfig().isCheckpointingEnabled()) {
            env.enableCheckpointing(settings.checkpointIntervalMs());
        }
        List<String> outputs;
        try (Program program = new Program(settings.program())) {
            outputs = program.outputs();
        }
        int[] keys = Shards.keys(settings.shards());
        OutputTag<Tuple2<Integer, byte[]>> aside = new OutputTag<>("aside", NUMBERED);
        DataStream<Tuple2<Integer, byte[]>> chunks = null;
        DataStream<Tuple2<Integer, byte[]>> refused = null;
        for (Map.Entry<String, Settings.Source> entry : settings.sources().entrySet()) {
            SingleOutputStreamOperator<Tuple2<Integer, byte[]>> shared = intake(env, settings, entry.getKey(), entry.getValue(), keys, aside);
            chunks = chunks == null ? shared : chunks.union(shared);
            DataStream<Tuple2<Integer, byte[]>> malformed = shared.getSideOutput(aside);
            refused = refused == null ? malformed : refused.union(malformed);
        }
        boolean[] wanted = wanted(settings, outputs);
        SingleOutputStreamOperator<Tuple2<Integer, byte[]>> written = chunks.keyBy(chunk -> chunk.f0)
                .transform(settings.name(), NUMBERED, new FlowOperator(settings, wanted))
                .uid("flow")
                .setMaxParallelism(settings.shards());
        if (settings.shards() < env.getParallelism()) {
            written.setParallelism(settings.shards());
        }
        KafkaSink<Tuple2<Integer, byte[]>> sink = sink(settings, outputs);
        written.sinkTo(sink).name("outputs").uid("outputs").setParallelism(written.getParallelism());
        if (settings.shards() > 1) {
            KafkaSink<Tuple2<Integer, byte[]>> malformed = sink(settings, outputs, "-malformed");
            refused.filter(record -> wanted[record.f0]).uid("malformed-wanted").sinkTo(malformed).name("malformed").uid("malformed");
        }
    }

    private static boolean[] wanted(Settings settings, List<String> outputs) {
        boolean[] wanted = new boolean[outputs.size()];
        IntStream.range(0, wanted.length).forEach(i -> wanted[i] = settings.sinks().topics().containsKey(outputs.get(i)));
        return wanted;
    }

    private static SingleOutputStreamOperator<Tuple2<Integer, byte[]>> intake(
            StreamExecutionEnvironment env,
            Settings settings,
            String stream,
            Settings.Source source,
            int[] keys,
            OutputTag<Tuple2<Integer, byte[]>> aside) {
        KafkaSourceBuilder<byte[]> kafka = KafkaSource.<byte[]>builder()
                .setProperties(source.kafka())
                .setTopics(source.topic())
                .setDeserializer(new RecordReader())
                .setStartingOffsets(start(source.start()));
        if (source.bounded()) {
            kafka.setBounded(OffsetsInitializer.latest());
        }
        return env.fromSource(kafka.build(), WatermarkStrategy.noWatermarks(), stream)
                .uid("source-" + stream)
                .transform("share " + stream, NUMBERED, new IntakeOperator(settings, source.number(), source.delayUs(), keys, aside))
                .uid("intake-" + stream);
    }

    // What the connector takes is what Kafka has deprecated.
    @SuppressWarnings("deprecation")
    private static OffsetsInitializer start(String start) {
        return switch (start) {
            case "earliest" -> OffsetsInitializer.earliest();
            case "latest" -> OffsetsInitializer.latest();
            case "committed" -> OffsetsInitializer.committedOffsets(OffsetResetStrategy.EARLIEST);
            default -> throw new IllegalArgumentException("start '" + start + "' is none of earliest, latest, committed");
        };
    }

    private static KafkaSink<Tuple2<Integer, byte[]>> sink(Settings settings, List<String> outputs) {
        return sink(settings, outputs, "");
    }

    private static KafkaSink<Tuple2<Integer, byte[]>> sink(Settings settings, List<String> outputs, String suffix) {
        Settings.Sinks sinks = settings.sinks();
        return KafkaSink.<Tuple2<Integer, byte[]>>builder()
                .setKafkaProducerConfig(sinks.kafka())
                .setBootstrapServers(sinks.kafka().getProperty("bootstrap.servers"))
                .setRecordSerializer(new RecordWriter(sinks.topics(), outputs))
                .setDeliveryGuarantee(sinks.exactlyOnce() ? DeliveryGuarantee.EXACTLY_ONCE : DeliveryGuarantee.AT_LEAST_ONCE)
                .setTransactionalIdPrefix(sinks.transactionalIdPrefix() + suffix)
                .build();
    }
}
