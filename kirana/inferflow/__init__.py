"""Inferflow: ids in, scores out; features found, a matrix built, models called, by config."""

from kirana.inferflow.source import Inferer, InferRequest, InferResult

__all__ = ["InferRequest", "InferResult", "Inferer"]
