"""The floors: alternatives to Kirana, written as an expert would write them by hand."""
