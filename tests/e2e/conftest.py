"""Session-wide: a tiny model, and one uninterrupted run to compare with."""

import pytest

from tests.core.tiny_models import save_tiny_model


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """A random-weights Llama of three blocks, in a local folder."""
    return save_tiny_model(tmp_path_factory.mktemp("model"), family="llama", n_layers=3)


@pytest.fixture(scope="session")
def reference(model, tmp_path_factory):
    """An uninterrupted run of four transcoders: manifest, run folder, what it printed."""
    from tests.e2e.runs import run_here, write_manifest

    folder = tmp_path_factory.mktemp("reference")
    manifest = write_manifest(folder, model)
    code, printed = run_here(manifest, folder)
    assert code == 0, printed
    return manifest, folder / "small", printed
