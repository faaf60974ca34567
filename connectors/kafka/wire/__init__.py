"""Requests that the client library has no call for, written by hand."""
