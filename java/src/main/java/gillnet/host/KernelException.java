package gillnet.host;

/** What the kernel refused: a fault of Gillnet, of a program, or of stored state; never of a record. */
public final class KernelException extends RuntimeException {
    private static final long serialVersionUID = 1L;

    public KernelException(String message) {
        super(message);
    }
}
