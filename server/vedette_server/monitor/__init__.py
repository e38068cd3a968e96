"""What the answers look like: told by the engine, telling nobody back."""
