"""What the Helm chart makes, without Helm."""
