"""Models that make more of their trees' sum than a link: the sum is an output of its own, and what is explained."""
