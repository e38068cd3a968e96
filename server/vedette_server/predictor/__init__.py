"""Detectron2: load a version, run it, encode its answers. Only worker processes import this package."""

from vedette_server.predictor.uncompiled import import_torchvision

import_torchvision()  # before any module here imports Detectron2, which imports torchvision
