import java.time.Duration;
import org.apache.flink.api.common.eventtime.WatermarkStrategy;
import org.apache.flink.api.common.functions.OpenContext;
import org.apache.flink.api.common.state.ValueState;
import org.apache.flink.api.common.state.ValueStateDescriptor;
import org.apache.flink.api.common.typeinfo.Types;
import org.apache.flink.api.connector.source.util.ratelimit.RateLimiterStrategy;
import org.apache.flink.api.java.tuple.Tuple2;
import org.apache.flink.connector.datagen.source.DataGeneratorSource;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.streaming.api.functions.KeyedProcessFunction;
import org.apache.flink.streaming.api.functions.sink.v2.DiscardingSink;
import org.apache.flink.util.Collector;

/**
 * Counts numbers by key: what a pipeline looks like to a cluster, without one. A record is a number with a kilobyte behind it, so that what
 * piles up in buffers is felt soon. Arguments: name, numbers a second, keys, microseconds of
 * work a number, how many of ten numbers have the key 0, and the number at which it fails (-1: none).
 */
public class CountingJob {
    /** Each subtask of the source counts through a part of all numbers; they are to be of the same time. */
    private static final long RANGE = 1_000_000_000L;

    public static void main(String[] arguments) throws Exception {
        if (arguments.length != 6) {
            throw new IllegalArgumentException("CountingJob wants six arguments, not " + arguments.length);
        }
        double perSecond = Double.parseDouble(arguments[1]);
        long keys = Long.parseLong(arguments[2]);
        long workUs = Long.parseLong(arguments[3]);
        long ofTen = Long.parseLong(arguments[4]);
        long failsAt = Long.parseLong(arguments[5]);
        StreamExecutionEnvironment environment = StreamExecutionEnvironment.getExecutionEnvironment();
        environment
                .fromSource(
                        new DataGeneratorSource<String>(
                                number -> (number % RANGE) + ";" + "x".repeat(1_000),
                                Long.MAX_VALUE,
                                RateLimiterStrategy.perSecond(perSecond),
                                Types.STRING),
                        WatermarkStrategy.<String>forBoundedOutOfOrderness(Duration.ofSeconds(1))
                                .withTimestampAssigner((record, before) -> 1_700_000_000_000L + numberOf(record)),
                        "numbers")
                .uid("numbers")
                .keyBy(record -> numberOf(record) % 10 < ofTen ? 0L : numberOf(record) % keys)
                .process(new Counting(workUs, failsAt))
                .uid("counts")
                .name("counts")
                .sinkTo(new DiscardingSink<>());
        environment.execute(arguments[0]);
    }

    static long numberOf(String record) {
        return Long.parseLong(record.substring(0, record.indexOf(';')));
    }

    static class Counting extends KeyedProcessFunction<Long, String, Tuple2<Long, Long>> {
        private final long workUs;
        private final long failsAt;
        private transient ValueState<Long> count;

        Counting(long workUs, long failsAt) {
            this.workUs = workUs;
            this.failsAt = failsAt;
        }

        @Override
        public void open(OpenContext context) {
            count = getRuntimeContext().getState(new ValueStateDescriptor<>("count", Types.LONG));
        }

        @Override
        public void processElement(String record, Context context, Collector<Tuple2<Long, Long>> out) throws Exception {
            long number = numberOf(record);
            if (number == failsAt) {
                throw new IllegalStateException("number " + number + " is not wanted");
            }
            if (workUs > 0) {
                Thread.sleep(workUs / 1_000, (int) (workUs % 1_000) * 1_000);
            }
            Long before = count.value();
            count.update(before == null ? 1L : before + 1L);
            out.collect(Tuple2.of(context.getCurrentKey(), count.value()));
        }
    }
}
