"""What goes into a model and what comes out: the input contract, images, answers, refusals. No torch, no gRPC."""
