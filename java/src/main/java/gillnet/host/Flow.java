package gillnet.host;

/** A shard's pipeline. One thread uses it. What comes out is a frame for {@link OutRecords}; empty where nothing does. */
public final class Flow implements AutoCloseable {
    private long handle;

    Flow(long handle) {
        this.handle = handle;
    }

    /** Let an assigned partition hold the watermark before its first record. */
    public void register(int stream, int partition, long nowUs) {
        Native.register(open(), stream, partition, nowUs);
    }

    /** Go on after the run was away: nobody was silent meanwhile. */
    public void resume(long nowUs) {
        Native.resume(open(), nowUs);
    }

    public byte[] take(byte[] chunk) {
        return Native.take(open(), chunk);
    }

    /** Processing time passes: silent partitions fall idle, rows that waited leave, changed rows are revised. */
    public byte[] passTime(long nowUs) {
        return Native.passTime(open(), nowUs);
    }

    /** A bounded stream has ended. */
    public byte[] finish(int stream) {
        return Native.finish(open(), stream);
    }

    /** Everything that waits leaves. */
    public byte[] end(long nowUs) {
        return Native.end(open(), nowUs);
    }

    public byte[] snapshot() {
        return Native.snapshot(open());
    }

    /** Six counts of each stream, then six of the whole; see {@code crates/gillnet-jni}. */
    public long[] counts() {
        return Native.counts(open());
    }

    private long open() {
        if (handle == 0) {
            throw new IllegalStateException("the flow is closed");
        }
        return handle;
    }

    @Override
    public void close() {
        Native.closeFlow(handle);
        handle = 0;
    }
}
