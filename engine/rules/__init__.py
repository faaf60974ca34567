"""What a Prometheus and a Grafana are told of a pipeline: recording rules, alerts, dashboards, from its settings."""
