package gillnet.host;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.Arrays;

/** Gathers records of a stream into a chunk; {@code crates/gillnet-flow/src/frame.rs} says how it lies. */
public final class ChunkBuilder {
    private static final int HEAD = 2 + 8 + 4;
    private static final int TAIL = 4;
    private ByteBuffer buffer = ByteBuffer.allocate(1 << 16).order(ByteOrder.LITTLE_ENDIAN);
    private final int stream;
    private int records;

    public ChunkBuilder(int stream) {
        this.stream = stream;
        buffer.position(HEAD);
    }

    /** Add a record as {@link #record} made it. */
    public void add(byte[] record) {
        room(record.length);
        buffer.put(record);
        records++;
    }

    public int records() {
        return records;
    }

    public int bytes() {
        return buffer.position();
    }

    /** The chunk, read at {@code arrivalUs}; the builder is empty then. */
    public byte[] finish(long arrivalUs) {
        room(TAIL);
        buffer.putInt(0);
        buffer.putShort(0, (short) stream).putLong(2, arrivalUs).putInt(10, records);
        byte[] chunk = Arrays.copyOf(buffer.array(), buffer.position());
        buffer.position(HEAD);
        records = 0;
        return chunk;
    }

    private void room(int bytes) {
        if (buffer.remaining() < bytes) {
            int size = Math.max(buffer.capacity() * 2, buffer.position() + bytes);
            buffer = ByteBuffer.allocate(size).order(ByteOrder.LITTLE_ENDIAN).put(buffer.array(), 0, buffer.position());
        }
    }

    /** A record's bytes in a chunk; {@code headers} lie as frames have them, null for none. */
    public static byte[] record(int partition, long offset, byte[] key, byte[] headers, byte[] value) {
        int size = 4 + 8 + 4 + length(key) + 4 + length(headers) + 4 + length(value);
        ByteBuffer out = ByteBuffer.allocate(size).order(ByteOrder.LITTLE_ENDIAN).putInt(partition).putLong(offset);
        put(out, key);
        put(out, headers);
        put(out, value == null ? new byte[0] : value);
        return out.array();
    }

    private static int length(byte[] string) {
        return string == null ? 0 : string.length;
    }

    private static void put(ByteBuffer out, byte[] string) {
        out.putInt(string == null ? -1 : string.length);
        if (string != null) {
            out.put(string);
        }
    }
}
