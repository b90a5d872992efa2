package gillnet.host;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.function.ObjIntConsumer;

/** Shares out the records of a stream among shards. One thread uses it. */
public final class Intake implements AutoCloseable {
    private long handle;

    Intake(long handle) {
        this.handle = handle;
    }

    /** What became of a chunk, beside its parts. */
    public record Shared(long malformed, long slowestUs, byte[] aside) {}

    /** Share out a chunk: each part is handed to {@code parts} with its shard. */
    public Shared share(byte[] chunk, ObjIntConsumer<byte[]> parts) {
        if (handle == 0) {
            throw new IllegalStateException("the intake is closed");
        }
        ByteBuffer shared = ByteBuffer.wrap(Native.share(handle, chunk)).order(ByteOrder.LITTLE_ENDIAN);
        long malformed = shared.getLong();
        long slowest = shared.getLong();
        byte[] aside = take(shared, shared.getInt());
        while (shared.hasRemaining()) {
            int shard = shared.getInt();
            parts.accept(take(shared, shared.getInt()), shard);
        }
        return new Shared(malformed, slowest, aside);
    }

    private static byte[] take(ByteBuffer from, int length) {
        byte[] bytes = new byte[length];
        from.get(bytes);
        return bytes;
    }

    @Override
    public void close() {
        Native.closeIntake(handle);
        handle = 0;
    }
}
