"""Detectron2: load a version, run it, encode its answers. Only worker processes import this package."""
