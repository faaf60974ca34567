"""What exporters write in ways of their own."""
