"""The transport-free core: what is served, admission, queues, dispatch to workers. No gRPC."""
