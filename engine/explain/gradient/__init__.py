"""Expected gradients and DeepLIFT from a gradient graph derived from the ONNX file."""
