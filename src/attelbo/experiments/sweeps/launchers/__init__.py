"""Launchers that run the jobs of a sweep in other processes: workers on this machine, or a cluster's."""
