"""Our own operators for skl2onnx: what it has none for, or where its own lose digits."""
