"""Tools for testing specs: Hypothesis strategies and the universal oracle. Needs `hypothesis`."""
