"""The demo: from the raw events of MovieLens 100K to personalised lists over HTTP."""
