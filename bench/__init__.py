"""Benchmarks that compare Kirana with floors (hand-written alternatives) in the same run."""
