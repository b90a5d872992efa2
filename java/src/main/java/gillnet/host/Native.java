package gillnet.host;

import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.util.Locale;

/** The native library's functions ({@code crates/gillnet-jni}). Handles are used through {@link Program}, {@link Intake}, {@link Flow}. */
final class Native {
    static {
        load();
    }

    private Native() {}

    static native long openProgram(byte[] json);

    static native String[] outputs(long program);

    static native void closeProgram(long program);

    static native long openIntake(long program, int stream, int shards, long tellAllUs);

    static native byte[] share(long intake, byte[] chunk);

    static native void closeIntake(long intake);

    static native long openFlow(long program, byte[] state);

    static native void register(long flow, int stream, int partition, long nowUs);

    static native void resume(long flow, long nowUs);

    static native byte[] take(long flow, byte[] chunk);

    static native byte[] passTime(long flow, long nowUs);

    static native byte[] finish(long flow, int stream);

    static native byte[] end(long flow, long nowUs);

    static native byte[] snapshot(long flow);

    static native long[] counts(long flow);

    static native void closeFlow(long flow);

    /**
     * Load the library out of the jar. Every class loader gets a copy of its own, for a JVM loads one file into one class loader only,
     * and an engine makes a new one for each job and each restart.
     */
    private static void load() {
        String system = System.getProperty("os.name").toLowerCase(Locale.ROOT).replace(" ", "");
        String machine = System.getProperty("os.arch").replace("amd64", "x86_64");
        String resource = "/native/" + system + "-" + machine + "/libgillnet_jni.so";
        try (InputStream library = Native.class.getResourceAsStream(resource)) {
            if (library == null) {
                throw new UnsatisfiedLinkError(
                        "this jar has no kernel for " + system + " on " + machine + " (" + resource + "); build it there with `make java`");
            }
            Path copy = Files.createTempFile("gillnet-", ".so");
            try {
                Files.copy(library, copy, StandardCopyOption.REPLACE_EXISTING);
                System.load(copy.toAbsolutePath().toString());
            } finally {
                // What is loaded stays mapped.
                Files.deleteIfExists(copy);
            }
        } catch (IOException error) {
            throw new UncheckedIOException("the kernel's library cannot be unpacked to " + System.getProperty("java.io.tmpdir"), error);
        }
    }
}
