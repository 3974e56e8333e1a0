"""The serving graph, and the catalogs that come with Kirana."""
