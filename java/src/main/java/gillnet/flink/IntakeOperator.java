package gillnet.flink;

import gillnet.host.ChunkBuilder;
import gillnet.host.Intake;
import gillnet.host.OutRecords;
import gillnet.host.Program;
import org.apache.flink.api.java.tuple.Tuple2;
import org.apache.flink.streaming.api.operators.AbstractStreamOperator;
import org.apache.flink.streaming.api.operators.BoundedOneInput;
import org.apache.flink.streaming.api.operators.OneInputStreamOperator;
import org.apache.flink.streaming.api.watermark.Watermark;
import org.apache.flink.streaming.runtime.streamrecord.StreamRecord;
import org.apache.flink.api.common.operators.ProcessingTimeService.ProcessingTimeCallback;
import org.apache.flink.util.OutputTag;

/**
 * Gathers the records of a stream into micro-batches and shares them out among shards. It is chained to the source: nothing is copied or
 * serialised before.
 */
final class IntakeOperator extends AbstractStreamOperator<Tuple2<Integer, byte[]>>
        implements OneInputStreamOperator<byte[], Tuple2<Integer, byte[]>>, BoundedOneInput, ProcessingTimeCallback {
    private static final long serialVersionUID = 1L;
    private static final int MOST_BYTES = 1 << 20;
    private static final long TELL_ALL_MS = 100;
    private final Settings settings;
    private final int stream;
    private final long delayUs;
    private final OutputTag<Tuple2<Integer, byte[]>> aside;
    private final int[] keys;
    private transient Program program;
    private transient Intake intake;
    private transient ChunkBuilder chunk;
    private transient boolean flushes;
    private transient boolean tells;
    private transient long watermarkMs;

    IntakeOperator(Settings settings, int stream, long delayUs, int[] keys, OutputTag<Tuple2<Integer, byte[]>> aside) {
        this.settings = settings;
        this.stream = stream;
        this.delayUs = delayUs;
        this.keys = keys;
        this.aside = aside;
    }

    @Override
    public void open() throws Exception {
        super.open();
        chunk = new ChunkBuilder(stream);
        watermarkMs = Long.MIN_VALUE;
        if (settings.shards() > 1) {
            program = new Program(settings.program());
            intake = program.intake(stream, settings.shards(), TELL_ALL_MS * 1_000);
        }
    }

    @Override
    public void processElement(StreamRecord<byte[]> element) {
        chunk.add(element.getValue());
        if (chunk.records() >= settings.batchRecords() || chunk.bytes() >= MOST_BYTES) {
            flush();
        } else if (!flushes) {
            flushes = true;
            getProcessingTimeService().registerTimer(now() + settings.lingerMs(), this);
        }
    }

    @Override
    public void onProcessingTime(long time) {
        flushes = false;
        flush();
    }

    @Override
    public void prepareSnapshotPreBarrier(long checkpointId) {
        // What was read lies before the barrier.
        flush();
    }

    @Override
    public void endInput() {
        flush();
    }

    @Override
    public void processWatermark(Watermark mark) throws Exception {
        // The source knows no event times: this operator says how far the stream is. The end of time is the source's to say.
        if (mark.getTimestamp() == Watermark.MAX_WATERMARK.getTimestamp()) {
            super.processWatermark(mark);
        }
    }

    private long now() {
        return getProcessingTimeService().getCurrentProcessingTime();
    }

    private void flush() {
        if (chunk.records() > 0) {
            share(chunk.finish(now() * 1_000));
        }
    }

    private void share(byte[] bytes) {
        if (intake == null) {
            output.collect(new StreamRecord<>(Tuple2.of(keys[0], bytes)));
            return;
        }
        Intake.Shared shared = intake.share(bytes, (part, shard) -> output.collect(new StreamRecord<>(Tuple2.of(keys[shard], part))));
        OutRecords.each(shared.aside(), (record, number) -> output.collect(aside, new StreamRecord<>(Tuple2.of(number, record))));
        if (shared.slowestUs() != Long.MIN_VALUE && (shared.slowestUs() - delayUs) / 1_000 > watermarkMs) {
            watermarkMs = (shared.slowestUs() - delayUs) / 1_000;
            output.emitWatermark(new Watermark(watermarkMs));
        }
        if (!tells) {
            tells = true;
            getProcessingTimeService().registerTimer(now() + TELL_ALL_MS, time -> tellAll());
        }
    }

    /** Shards that got no record since are told how far the stream is. */
    private void tellAll() {
        tells = false;
        Intake.Shared told = intake.share(
                new ChunkBuilder(stream).finish(now() * 1_000),
                (part, shard) -> output.collect(new StreamRecord<>(Tuple2.of(keys[shard], part))));
        assert told.malformed() == 0;
    }

    @Override
    public void close() throws Exception {
        try {
            if (intake != null) {
                intake.close();
            }
            if (program != null) {
                program.close();
            }
        } finally {
            super.close();
        }
    }
}
