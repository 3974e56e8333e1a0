"""The law of time that every way in keeps: what is of the future is refused."""

MAX_FUTURE_MS = 5 * 60_000
"""How far ahead an event may be: clocks differ by minutes, not more."""
