"""The programs that compete, each started by the referee in ``benchmarks.turns`` as a process of its own."""
