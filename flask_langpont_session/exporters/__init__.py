"""Where the recorder's figures go: CloudWatch and Prometheus. Nothing of it is imported unless METRICS names one."""
