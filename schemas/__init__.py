"""What crosses a boundary: the contracts on the topics and the nouns that all packages share."""
