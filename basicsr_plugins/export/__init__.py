"""Networks in files that other programs run: safetensors, TorchScript and ONNX, each compared before it counts."""
