"""The DAG executor, which runs the flows that the catalog declares."""

from kirana.flow.source import FlowRequest, FlowResult, FlowRunner, Span

__all__ = ["FlowRequest", "FlowResult", "FlowRunner", "Span"]
