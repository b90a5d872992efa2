"""Physical operators over the kernel: decode, compute features, decide, encode; one a file."""
