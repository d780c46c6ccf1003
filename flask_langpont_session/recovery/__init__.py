"""What goes on beside requests: looking after the stores, and bringing them what they missed."""
