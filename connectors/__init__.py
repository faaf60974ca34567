"""How bytes arrive and leave."""
