"""Rules and the values they decide from. No module in here reads or writes anything, and time is an argument."""
