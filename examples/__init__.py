"""Example applications that use Kirana."""
