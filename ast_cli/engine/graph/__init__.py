"""The model as a graph of ONNX operators, and the engines that run it without PyTorch."""
