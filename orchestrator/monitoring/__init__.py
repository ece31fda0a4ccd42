"""What Prometheus may ask of a run, and what Grafana shows of it."""
