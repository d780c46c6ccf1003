"""What tests of several kinds use: clocks, programs, processes, values."""
