"""The catalog: objects in YAML files, validated together and published as revisions."""
