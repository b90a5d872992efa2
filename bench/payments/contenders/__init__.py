"""The contenders: each module is a program of its own that speaks the contract in `bench.payments.contract`."""
