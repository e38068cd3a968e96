"""The dashboards: what Grafana draws of a fleet's metrics, made with its SDK, which the extra `dashboards` installs."""
