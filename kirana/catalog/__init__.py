"""Versioned configuration: objects in files, validated together, published as revisions."""
