"""Speed side by side in one run: ``python -m tests.bench`` (or ``make bench``).

Everything is timed against what a reader would write without this library, and against the floor set by
the matrix products alone. Only the ratios mean something: another machine, or another hour, has other
microseconds.
"""
