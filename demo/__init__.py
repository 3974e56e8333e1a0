"""The demo: MovieLens 100K from raw events to personalised lists, served by Kirana over HTTP."""
