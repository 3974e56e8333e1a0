"""Protobuf messages, generated from `proto/` by `make proto`, and the arrays within them."""
