"""Detectron2: load a version, run it, write down what it answered. Only a worker process imports this room."""
