"""Feast, which the benchmark `features` compares Kirana with, in its own virtual environment."""
