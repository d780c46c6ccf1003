"""Lists that are appended to while everything fails: every acknowledged entry is there at the end, or is reported."""
