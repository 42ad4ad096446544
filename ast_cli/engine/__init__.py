"""Engines that run a loaded model: PyTorch, ONNX Runtime and OpenVINO."""
