"""Rebuilding the tables of papers: ``attelbo reproduce``."""
