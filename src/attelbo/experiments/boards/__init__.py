"""Dashboards: what runs log to them, and the commands that use a W&B server afterwards."""
