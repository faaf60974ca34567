"""The demonstration: a year of real departures from New York, predicted and explained as they take off."""
