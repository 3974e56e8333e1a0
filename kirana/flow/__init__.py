"""IOP, the DAG executor: flows as config, compiled, checked, and run in parallel branches."""

from kirana.flow.source import FlowRequest, FlowResult, FlowRunner, Span

__all__ = ["FlowRequest", "FlowResult", "FlowRunner", "Span"]
