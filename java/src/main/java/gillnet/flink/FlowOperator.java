package gillnet.flink;

import gillnet.host.Flow;
import gillnet.host.OutRecords;
import gillnet.host.Program;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import org.apache.flink.api.common.state.ValueState;
import org.apache.flink.api.common.state.ValueStateDescriptor;
import org.apache.flink.api.common.typeinfo.PrimitiveArrayTypeInfo;
import org.apache.flink.api.java.tuple.Tuple2;
import org.apache.flink.metrics.MetricGroup;
import org.apache.flink.runtime.state.StateInitializationContext;
import org.apache.flink.runtime.state.StateSnapshotContext;
import org.apache.flink.runtime.state.VoidNamespace;
import org.apache.flink.streaming.api.operators.AbstractStreamOperator;
import org.apache.flink.streaming.api.operators.BoundedOneInput;
import org.apache.flink.streaming.api.operators.OneInputStreamOperator;
import org.apache.flink.streaming.runtime.streamrecord.StreamRecord;

/** Hosts the kernel: a flow for each shard, whose state is Flink's keyed state. */
final class FlowOperator extends AbstractStreamOperator<Tuple2<Integer, byte[]>>
        implements OneInputStreamOperator<Tuple2<Integer, byte[]>, Tuple2<Integer, byte[]>>, BoundedOneInput {
    private static final long serialVersionUID = 1L;
    private static final String STATE = "flow";
    private static final List<String> COUNTS = List.of("read", "scored", "malformed", "duplicate", "too_late", "late");
    private static final List<String> TOTALS =
            List.of("alerts", "revisions", "revisions_flipped", "sessions_closed", "matches", "matches_withdrawn");
    private final Settings settings;
    /** Whether an output is written, by its number. */
    private final boolean[] wanted;
    private transient Program program;
    private transient Map<Integer, Flow> flows;
    private transient ValueState<byte[]> states;

    FlowOperator(Settings settings, boolean[] wanted) {
        this.settings = settings;
        this.wanted = wanted;
    }

    @Override
    public void initializeState(StateInitializationContext context) throws Exception {
        super.initializeState(context);
        program = new Program(settings.program());
        flows = new TreeMap<>();
        states = context.getKeyedStateStore()
                .getState(new ValueStateDescriptor<>(STATE, PrimitiveArrayTypeInfo.BYTE_PRIMITIVE_ARRAY_TYPE_INFO));
        List<Integer> shards = new ArrayList<>();
        try (var keys = this.<Integer>getKeyedStateBackend().getKeys(STATE, VoidNamespace.INSTANCE)) {
            keys.forEach(shards::add);
        }
        // At once, not with their first records: sessions close, and rows leave, in shards where nothing arrives any more.
        for (Integer shard : shards) {
            setCurrentKey(shard);
            Flow flow = program.flow(states.value());
            flow.resume(nowUs());
            flows.put(shard, flow);
        }
    }

    @Override
    public void open() throws Exception {
        super.open();
        MetricGroup group = getMetricGroup().addGroup("gillnet");
        int number = 0;
        for (String stream : settings.sources().keySet()) {
            for (String name : COUNTS) {
                gauge(group.addGroup("stream", stream), name, number++);
            }
        }
        for (String name : TOTALS) {
            gauge(group, name, number++);
        }
        getProcessingTimeService().registerTimer(nowUs() / 1_000 + settings.tickMs(), this::tick);
    }

    private void gauge(MetricGroup group, String name, int number) {
        // Read by the metrics' own thread: from what the task's thread left at its last tick.
        group.gauge(name, () -> totals == null ? 0L : totals[number]);
    }

    private transient volatile long[] totals;

    @Override
    public void processElement(StreamRecord<Tuple2<Integer, byte[]>> element) throws Exception {
        Tuple2<Integer, byte[]> chunk = element.getValue();
        emit(flow(chunk.f0).take(chunk.f1));
    }

    private Flow flow(Integer shard) {
        Flow flow = flows.get(shard);
        if (flow == null) {
            flow = program.flow(null);
            for (Settings.Source source : settings.sources().values()) {
                for (int partition = 0; partition < source.partitions(); partition++) {
                    flow.register(source.number(), partition, nowUs());
                }
            }
            flows.put(shard, flow);
        }
        return flow;
    }

    private void tick(long time) {
        long[] sums = new long[settings.sources().size() * COUNTS.size() + TOTALS.size()];
        for (Flow flow : flows.values()) {
            emit(flow.passTime(nowUs()));
            long[] counts = flow.counts();
            for (int i = 0; i < sums.length; i++) {
                sums[i] += counts[i];
            }
        }
        totals = sums;
        getProcessingTimeService().registerTimer(nowUs() / 1_000 + settings.tickMs(), this::tick);
    }

    private void emit(byte[] frame) {
        OutRecords.each(frame, (record, number) -> {
            if (wanted[number]) {
                output.collect(new StreamRecord<>(Tuple2.of(number, record)));
            }
        });
    }

    private long nowUs() {
        return getProcessingTimeService().getCurrentProcessingTime() * 1_000;
    }

    @Override
    public void snapshotState(StateSnapshotContext context) throws Exception {
        for (Map.Entry<Integer, Flow> entry : flows.entrySet()) {
            setCurrentKey(entry.getKey());
            states.update(entry.getValue().snapshot());
        }
        super.snapshotState(context);
    }

    @Override
    public void endInput() {
        for (Flow flow : flows.values()) {
            for (Settings.Source source : settings.sources().values()) {
                emit(flow.finish(source.number()));
            }
            emit(flow.end(nowUs()));
        }
    }

    @Override
    public void close() throws Exception {
        try {
            if (flows != null) {
                flows.values().forEach(Flow::close);
                flows.clear();
            }
            if (program != null) {
                program.close();
            }
        } finally {
            super.close();
        }
    }
}
