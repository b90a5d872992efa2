package gillnet.host;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.function.ObjIntConsumer;

/** Reads frames of records on their way out; {@code crates/gillnet-flow/src/frame.rs} says how they lie. */
public final class OutRecords {
    private OutRecords() {}

    /** A record for a sink. */
    public record Content(byte[] key, List<Header> headers, byte[] value) {}

    public record Header(String name, byte[] value) {}

    /** Hand each record's bytes to {@code records}, with the number of its output. */
    public static void each(byte[] frame, ObjIntConsumer<byte[]> records) {
        if (frame.length == 0) {
            return;
        }
        ByteBuffer from = ByteBuffer.wrap(frame).order(ByteOrder.LITTLE_ENDIAN);
        for (int left = from.getInt(); left > 0; left--) {
            int output = Short.toUnsignedInt(from.getShort());
            int begin = from.position();
            for (int part = 0; part < 3; part++) {
                from.position(from.position() + Math.max(0, from.getInt(from.position())) + 4);
            }
            byte[] record = new byte[from.position() - begin];
            from.get(begin, record);
            records.accept(record, output);
        }
    }

    /** Read what {@link #each} gave. */
    public static Content content(byte[] record) {
        ByteBuffer from = ByteBuffer.wrap(record).order(ByteOrder.LITTLE_ENDIAN);
        byte[] key = string(from);
        byte[] headers = string(from);
        return new Content(key, headers(headers), string(from));
    }

    private static List<Header> headers(byte[] block) {
        if (block == null) {
            return List.of();
        }
        ByteBuffer from = ByteBuffer.wrap(block).order(ByteOrder.LITTLE_ENDIAN);
        int count = Short.toUnsignedInt(from.getShort());
        List<Header> found = new ArrayList<>(count);
        for (int i = 0; i < count; i++) {
            byte[] name = new byte[Short.toUnsignedInt(from.getShort())];
            from.get(name);
            found.add(new Header(new String(name, StandardCharsets.UTF_8), string(from)));
        }
        return found;
    }

    private static byte[] string(ByteBuffer from) {
        int length = from.getInt();
        if (length < 0) {
            return null;
        }
        byte[] bytes = new byte[length];
        from.get(bytes);
        return bytes;
    }
}
