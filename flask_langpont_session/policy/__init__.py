"""What is decided, and from what: no module in here reads or writes anything, and time is an argument."""
