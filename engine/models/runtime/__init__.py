"""Running a bundle: ONNX Runtime, the native tree kernel, and the choice between them."""
