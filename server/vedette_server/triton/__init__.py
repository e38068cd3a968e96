"""A model inside Triton: the export of its repository, and what Triton's Python backend runs there."""
