"""Files of models that are not packaged, by the end of their names, and what to do instead."""

_python_lines = (
    "which only Python may open: load it there, and package the live object with "
    "`from penstock.engine.models.packaging.package import package` and `package(model, 'bundle')`"
)
refused_kinds = {
    ".pkl": f"a pickle, {_python_lines}",
    ".pickle": f"a pickle, {_python_lines}",
    ".joblib": f"a pickle of joblib, {_python_lines}",
    ".pt": "a PyTorch file; export it with torch.onnx.export (dynamic batch) and package the .onnx",
    ".pth": "a PyTorch file; export it with torch.onnx.export (dynamic batch) and package the .onnx",
    ".keras": "a Keras file; export it with tf2onnx and package the .onnx",
    ".h5": "a Keras file; export it with tf2onnx and package the .onnx",
    ".model": "of XGBoost's old binary format; save it again with save_model as .json or .ubj",
    ".bin": "of a format that is not known by its name; XGBoost's is saved as .json or .ubj, LightGBM's as .txt",
}
