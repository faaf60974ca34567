"""What a cluster has, allows and holds: topics, permissions, offsets of groups."""
