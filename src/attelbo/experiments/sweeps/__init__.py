"""Sweeps: many jobs of one command, which can be given again at any time and goes on where it stopped."""
