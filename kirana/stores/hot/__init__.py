"""Copies of feature rows in a fast store, in front of the durable one that has the truth."""
