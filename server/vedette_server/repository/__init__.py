"""Models on disk: the layout, what belongs to a version, and whether it is still what it was."""
