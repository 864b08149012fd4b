"""Measuring models side by side: what runs, how it is timed, and what is written of it. See docs/bench.md."""
