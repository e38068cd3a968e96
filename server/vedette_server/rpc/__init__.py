"""gRPC and HTTP: servicers, conversion to and from protobuf, the one table of errors."""
