"""Binary messages, generated from `proto/` by `make proto`, and arrays as blocks in them."""
