"""Runs of random operations and faults on real servers, and the laws that must hold in them.

`make chaos SEEDS=1-200` runs one seed after another. A seed decides the operations, the faults and
their times. The servers and Kirana start once, and each seed has keys of its own.
"""
