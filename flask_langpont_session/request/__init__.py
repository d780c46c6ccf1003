"""One request over all stores."""
