"""Feast, the other side of `features`, in a virtual environment of its own."""
