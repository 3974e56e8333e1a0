"""The serving graph, and below it the shipped catalogs."""
