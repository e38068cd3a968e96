"""Models on disk: the layout, the files of a version, and the verification of their integrity."""
