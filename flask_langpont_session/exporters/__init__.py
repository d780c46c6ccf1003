"""Where the recorder's figures go: CloudWatch and Prometheus. Only `pump` is imported though METRICS names neither."""
