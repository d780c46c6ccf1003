"""Random numbers that are never the same in two workers, whatever an application seeds and however it forks."""

from random import SystemRandom

CHANCE = SystemRandom()
"""From the operating system: `random.seed()` has no effect on it, nor has it any on `random`."""
