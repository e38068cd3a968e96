"""The dashboards' story as one self-contained HTML page, for whoever has no Grafana: a program of its own."""
