"""`penstock simulate faults`: workers on a simulated Kafka, with everything that can go wrong drawn from one seed."""
