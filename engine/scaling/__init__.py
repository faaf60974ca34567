"""How many workers it takes: capacity, the planner, and the service that tells KEDA."""
