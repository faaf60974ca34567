"""The pages of a running engine and their twins in JSON, served by the supervisor."""
