"""The work beside requests: looking after the stores, and bringing them what they missed."""
