"""The ground floor: schema, event time, messages, errors and ports. It knows nothing of plans, kernels or brokers."""
