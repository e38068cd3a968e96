"""Models and operators of projects, as users bring them with --plugin: small, and trained on nothing."""
