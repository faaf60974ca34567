"""The bundle: a folder that holds all that a worker needs of a model, each file under its digest."""
