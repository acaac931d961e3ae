"""Dashboards: what runs tell them, and what is done with a server of W&B afterwards."""
