"""Vedette's server: Detectron2 models behind gRPC, in worker processes that it supervises and watches."""
