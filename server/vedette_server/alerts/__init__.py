"""The alert pack: what rings of a fleet's metrics, as rules for Prometheus with windows of the operator's choice."""
