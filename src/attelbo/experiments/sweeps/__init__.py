"""Sweeps: many jobs of one command, that can be run again at any time and go on where they stopped."""
