"""Baselines: the file beside a version, its statistics, and the metrics pages that they are drawn from."""
