"""ONNX models: their files, and the part that runs them."""

from kirana.models.runner import ModelRunner

__all__ = ["ModelRunner"]
