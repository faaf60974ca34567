"""Tree ensembles read from the libraries that trained them."""
