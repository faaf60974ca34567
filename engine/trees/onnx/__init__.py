"""Tree ensembles read from ONNX graphs and written as such."""
