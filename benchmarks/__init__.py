"""Speed, measured side by side: `python -m benchmarks` (or `make bench`).

``training.py`` says what is compared, ``contestants/`` holds the programs that compete, ``turns.py`` lets
them run in turns, and ``report.py`` makes the table. Nothing here is imported by attelbo.
"""
