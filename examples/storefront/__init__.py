"""A storefront that calls Kirana through handles."""
