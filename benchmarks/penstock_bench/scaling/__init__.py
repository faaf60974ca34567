"""`penstock simulate scaling`: the scaling law and its rivals on a simulated group, autoscaler and all."""
