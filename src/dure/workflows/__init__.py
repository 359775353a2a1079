"""Workflows as they are written: read, checked, and made into nodes and edges. Pure: nothing here does I/O."""

from dure.workflows.builder import DAG

__all__ = ["DAG"]
