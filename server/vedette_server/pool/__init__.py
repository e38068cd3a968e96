"""Supervised worker processes, the channel to them, and the loop that runs inside. No gRPC, no torch of its own."""
