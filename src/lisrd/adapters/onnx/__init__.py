"""ONNX files of a describer and its matcher, for use without torch; `docs/onnx.md` says what goes in and comes out."""

from lisrd.adapters.onnx.export import ExportedFiles, export_onnx

__all__ = ["ExportedFiles", "export_onnx"]
