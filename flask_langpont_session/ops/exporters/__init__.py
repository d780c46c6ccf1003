"""Exporters: the counts of ``metrics/``, published to CloudWatch, Prometheus and OpenTelemetry."""
