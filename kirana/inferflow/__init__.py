"""Inferflow: from ids to scores, by way of features, a matrix and models."""

from kirana.inferflow.source import InferflowRunner, InferRequest, InferResult

__all__ = ["InferRequest", "InferResult", "InferflowRunner"]
