"""Inferflow: ids in, scores out; features found, a matrix built, models called, by config."""

from kirana.inferflow.source import InferflowRunner, InferRequest, InferResult

__all__ = ["InferRequest", "InferResult", "InferflowRunner"]
