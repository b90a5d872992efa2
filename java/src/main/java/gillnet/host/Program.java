package gillnet.host;

import java.util.List;

/** A pipeline, compiled once for all flows of a process. It outlives what was opened with it. */
public final class Program implements AutoCloseable {
    private long handle;
    private final List<String> outputs;

    public Program(byte[] json) {
        handle = Native.openProgram(json);
        outputs = List.of(Native.outputs(handle));
    }

    /** The names of all outputs, by the number that a record carries. */
    public List<String> outputs() {
        return outputs;
    }

    /** What shares out a stream's records among shards. */
    public Intake intake(int stream, int shards, long tellAllUs) {
        return new Intake(Native.openIntake(open(), stream, shards, tellAllUs));
    }

    /** The flow of a shard; {@code state} is what its {@link Flow#snapshot} gave, null for one that has seen nothing. */
    public Flow flow(byte[] state) {
        return new Flow(Native.openFlow(open(), state));
    }

    private long open() {
        if (handle == 0) {
            throw new IllegalStateException("the program is closed");
        }
        return handle;
    }

    @Override
    public void close() {
        Native.closeProgram(handle);
        handle = 0;
    }
}
