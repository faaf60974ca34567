"""Everything between poll and commit."""
