"""How long the runs of a model take, estimated from earlier runs."""

from __future__ import annotations

SHORT_S = 0.001
"""A run that is expected to take at most this many CPU seconds may run on the event loop."""

LONG_S = 0.005
"""If one run takes more CPU seconds than this, later runs are expected to take as long."""

_GROUPS = 64
"""The number of groups. No number of cells has this many bits."""

_NEW_SHARE = 0.25
"""The share of a new measurement in the expectation.

The first measurement of a group, and that of a long run, count in full.
"""


class Pace:
    """The expected CPU time of a model's runs, by the number of cells in their inputs.

    Runs are grouped by the power of two of their number of cells. A run is expected to take as long
    as earlier runs of its group, or of the next larger group with runs. Times are CPU seconds of
    the thread that runs the model, so a thread that waits for a CPU does not make the model look
    slow.
    """

    def __init__(self) -> None:
        # A list of fixed length, because threads add runs while the event loop reads it.
        self._expected_s: list[float | None] = [None] * _GROUPS

    def is_short(self, cells: int) -> bool:
        """Return whether a run on `cells` cells is expected to be short.

        Return False if no run of its group or of a larger one was measured.
        """
        measured = self._expected_s[cells.bit_length() :]
        expected_s = next((seconds for seconds in measured if seconds is not None), None)
        return expected_s is not None and expected_s <= SHORT_S

    def add(self, cells: int, seconds: float) -> None:
        """Learn from a run on `cells` cells that took `seconds` of CPU time."""
        group = cells.bit_length()
        expected_s = self._expected_s[group]
        if expected_s is None or seconds > LONG_S:
            self._expected_s[group] = seconds
        else:
            self._expected_s[group] = expected_s + _NEW_SHARE * (seconds - expected_s)
