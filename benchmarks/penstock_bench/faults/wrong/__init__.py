"""Wrong versions of the engine, which the simulation must find."""
