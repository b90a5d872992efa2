//! Record formats of Gillnet: bytes to Arrow arrays and back. No I/O, no clock.
