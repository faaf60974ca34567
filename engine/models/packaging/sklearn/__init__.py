"""scikit-learn's estimators and pipelines: steps folded into trees, the rest through skl2onnx with its losses made good."""
