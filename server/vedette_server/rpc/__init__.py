"""gRPC and HTTP: servicers, conversion to and from protobuf, and the single table of errors."""
