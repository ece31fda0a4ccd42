"""Suites in the formats of other tools, checked before anything is written."""

from mtc_core.export.exporting import FORMATS, Export, export_suite
from mtc_core.export.facts import SuiteFacts

__all__ = ["FORMATS", "Export", "SuiteFacts", "export_suite"]
