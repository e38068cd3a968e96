"""Supervised worker processes, the channel to them, and the loop inside each. Imports neither gRPC nor torch."""
