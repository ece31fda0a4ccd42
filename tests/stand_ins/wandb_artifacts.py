"""A scripted stand-in for the wandb module: artifacts in memory, no server, no login.

It has the calls that mtc_core/wandb_artifacts.py makes, with what they are documented to do, and no
others. Nothing here shows what W&B itself answers.
"""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import wandb


class ScriptedArtifact:
    """Being made, or logged: then it has an entity, a project and a version."""

    def __init__(self, name, type, metadata):
        self.name, self.type, self.metadata = name, type, metadata
        self.files, self.options = {}, []
        self.manifest = SimpleNamespace(entries=self.files)

    def add_file(self, local_path, name, **options):
        self.files[name] = Path(local_path).read_bytes()
        self.options.append(options)

    def wait(self):
        return self

    @property
    def qualified_name(self):
        return f"{self.entity}/{self.project}/{self.name}"

    def download(self, root, path_prefix, skip_cache):
        assert skip_cache  # else every file is on the disk twice
        for name, content in self.files.items():
            if name.startswith(path_prefix or ""):
                (Path(root) / name).parent.mkdir(parents=True, exist_ok=True)
                (Path(root) / name).write_bytes(content)
        return root


class ScriptedWandb:
    """What is put for `wandb` in sys.modules. failing: what calls to its server raise."""

    Error, errors, Settings, Artifact = wandb.Error, wandb.errors, wandb.Settings, ScriptedArtifact

    def __init__(self, base_url):
        self.base_url, self.key = base_url, "a key"
        self.logged, self.runs = {}, []
        self.failing = None

    def setup(self):
        return SimpleNamespace(settings=SimpleNamespace(base_url=self.base_url))

    def login(self, prompt, verify):
        assert not prompt and not verify
        return self.key is not None

    @contextmanager
    def init(self, **options):
        self._fail()
        self.runs.append(options)
        yield SimpleNamespace(log_artifact=self._log)

    def _log(self, artifact):
        where = self.runs[-1]
        artifact.entity, artifact.project = where["entity"] or "me", where["project"]
        version = sum(name.startswith(f"{artifact.qualified_name}:v") for name in self.logged)
        latest = f"{artifact.qualified_name}:latest"
        artifact.name = f"{artifact.name}:v{version}"
        self.logged[artifact.qualified_name] = self.logged[latest] = artifact
        return artifact

    def Api(self):
        self._fail()
        return SimpleNamespace(artifact=self._find)

    def _find(self, name):
        name = name if name.count("/") == 2 else f"me/{name}"
        if name not in self.logged:
            raise ValueError(f"artifact membership {name!r} not found")
        return self.logged[name]

    def _fail(self):
        if self.failing:
            raise self.failing
