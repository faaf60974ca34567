"""Metrics, status and the HTTP server that shows them."""
