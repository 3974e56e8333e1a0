"""The other side, written as an expert would write it by hand."""
