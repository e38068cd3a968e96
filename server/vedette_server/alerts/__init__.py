"""The alert pack: rules for Prometheus over a fleet's metrics, with windows of the operator's choice."""
