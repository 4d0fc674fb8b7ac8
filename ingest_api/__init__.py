"""The HTTP service, signed events in and boards out."""
