"""Where the recorder's figures go: CloudWatch and Prometheus. Nothing here is imported unless METRICS names it."""
