"""The files that the workers of one host share: the journal, the board and the register."""
