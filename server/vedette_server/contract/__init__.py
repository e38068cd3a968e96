"""Inputs and outputs of models: the input contract, images, answers, refusals. No torch, no gRPC."""
