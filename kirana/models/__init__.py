"""ONNX models: sessions, and who runs them."""

from kirana.models.runner import ModelRunner

__all__ = ["ModelRunner"]
