"""What tests of several files here take."""

import pytest


@pytest.fixture(params=["reference", "onnxruntime"])
def run(request):
    """A judge of ONNX models: a function from a model and its inputs to the outputs."""
    import onnx_judges  # skips the test where onnx is missing

    return getattr(onnx_judges, f"run_{request.param}")
