"""A trained transcoder: load it, encode, decode, measure. Raw model units in and out.

    pre = x @ W_enc.T + b_enc;   a = relu(pre), sparsified;   y = a @ W_dec + b_dec (+ x @ W_skip.T)

Format of a saved one: mtc_core/FORMAT.md.

B rows (any leading dimensions) · F latents · I, O source and target widths
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mtc_core.atomic import new_folder, write_json_atomic
from mtc_core.checkpoint import CONFIG, DIGESTS, REFERENCE, WEIGHTS, file_digest
from mtc_core.config import TranscoderSpec
from mtc_core.errors import CheckpointError, ConfigError
from mtc_core.metrics import Population
from mtc_core.reference import Reference
from mtc_core.saved_spec import FORMAT_VERSION, spec_of_config
from mtc_core.selection import topk_lowest_index
from mtc_core.suite_files import one_of

CHUNK_ROWS = 512  # that `evaluate` takes at once; of 12,288 latents each needs 0.2 MB meanwhile


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A transcoder on given rows. FVU is 1 for a mean predictor, 0 for a perfect one."""

    reconstruction: Tensor  # ŷ of the whole dictionary, shape of y
    l0: float  # mean nonzeros per row
    l2: float  # mean ‖y − ŷ‖
    fvu_by_prefix: tuple[float, ...]  # of prefixes 1..m; the last is the FVU

    @property
    def fvu(self) -> float:
        return self.fvu_by_prefix[-1]


class MatryoshkaTranscoder(nn.Module):
    """Weights of one transcoder with all scaling folded in; decoder rows are unit.

    reference: what its rows are measured against, where it is known."""

    W_enc: Tensor
    b_enc: Tensor
    W_dec: Tensor
    b_dec: Tensor
    threshold: Tensor
    W_skip: Tensor | None

    def __init__(
        self, spec: TranscoderSpec, tensors: dict[str, Tensor], provenance: dict | None = None
    ) -> None:
        super().__init__()
        self.spec = spec
        self.provenance = provenance or {}
        self.reference: Reference | None = None
        for name in ("W_enc", "b_enc", "W_dec", "b_dec"):
            self.register_parameter(name, nn.Parameter(tensors[name], requires_grad=False))
        self.register_buffer("threshold", tensors["threshold"])
        W_skip = nn.Parameter(tensors["W_skip"], requires_grad=False) if spec.skip else None
        self.register_parameter("W_skip", W_skip)

    def _apply(self, fn: Any, recurse: bool = True) -> MatryoshkaTranscoder:
        """To another device or dtype; the reference follows to the device, and stays exact."""
        super()._apply(fn, recurse)
        if self.reference is not None:
            self.reference = self.reference.to(self.W_enc.device)
        return self

    @property
    def d_in(self) -> int:
        return self.W_enc.shape[1]

    @property
    def d_out(self) -> int:
        return self.W_dec.shape[1]

    @property
    def d_sae(self) -> int:
        return self.W_enc.shape[0]

    def extra_repr(self) -> str:
        sizes = "+".join(map(str, self.spec.group_sizes))
        return (
            f"{self.spec.source} -> {self.spec.target}, d_in {self.d_in}, d_out {self.d_out}, "
            f"groups {sizes}, k {self.spec.k}, {self.spec.selection}"
            + (", skip" if self.spec.skip else "")
        )

    def pre_activations(self, x: Tensor) -> Tensor:
        """[..., d_in] -> [..., d_sae], before relu and selection."""
        return torch.nn.functional.linear(x.to(self.W_enc.dtype), self.W_enc, self.b_enc)

    def encode(self, x: Tensor) -> Tensor:
        """[..., d_in] -> activations [..., d_sae], non-negative and sparse.

        `topk` keeps the k largest of each row; `batchtopk` keeps what exceeds the threshold, so
        that a row's code does not depend on its batch mates."""
        if x.shape[-1] != self.d_in:
            raise ConfigError(
                f"x is {x.shape[-1]} wide; this transcoder reads {self.spec.source}, "
                f"which is {self.d_in} wide"
            )
        pre = self.pre_activations(x)
        if self.spec.selection == "batchtopk":
            return pre.relu() * (pre > self.threshold)  # not in place: attribution differentiates
        pre_BF = pre.reshape(-1, self.d_sae)
        values, latents = topk_lowest_index(pre_BF, self.spec.k)
        return torch.zeros_like(pre_BF).scatter_(1, latents, values.relu()).view_as(pre)

    def base(self, x: Tensor | None = None) -> Tensor:
        """The reconstruction without any latent: b_dec [d_out], with a skip connection
        b_dec + x @ W_skip.T [..., d_out]. Raises ConfigError where that needs x and has none."""
        if self.W_skip is None:
            return self.b_dec
        if x is None:
            raise ConfigError(
                "this transcoder has a skip connection from its source: give x too, "
                "as in tc.decode(a, x=x)"
            )
        return torch.nn.functional.linear(x.to(self.W_skip.dtype), self.W_skip, self.b_dec)

    def decode(self, acts: Tensor, prefix: int | None = None, x: Tensor | None = None) -> Tensor:
        """[..., d_sae] -> [..., d_out], from the first `prefix` groups only (default: all).

        x [..., d_in]: the source rows of acts; needed with a skip connection alone."""
        widths = (0, *self.spec.widths)
        prefix = len(widths) - 1 if prefix is None else prefix
        if not 0 <= prefix < len(widths):
            raise ConfigError(f"prefix is {prefix}; this transcoder has {len(widths) - 1} groups")
        width = widths[prefix]
        return acts[..., :width] @ self.W_dec[:width] + self.base(x)

    def forward(self, x: Tensor) -> Tensor:
        """[..., d_in] -> reconstruction of the target [..., d_out]."""
        return self.decode(self.encode(x), x=x)

    @torch.no_grad()
    def evaluate(self, x: Tensor, y: Tensor) -> Evaluation:
        """Measure on rows x [..., d_in] and their targets y [..., d_out], all of them counted.

        FVU and l2 are NaN where a row holds one. Raises ConfigError for other shapes."""
        if y.shape != (*x.shape[:-1], self.d_out):
            raise ConfigError(
                f"x is {list(x.shape)} and y {list(y.shape)}; this transcoder predicts "
                f"{self.spec.target}, which is {self.d_out} wide, one row for each row of x"
            )
        x_BI, y_BO = x.reshape(-1, self.d_in), y.reshape(-1, self.d_out)
        totals = Population(self.d_sae, self.spec.group_sizes, self.d_out, x.device)
        parts, errors = [], []
        for x_part, y_part in zip(x_BI.split(CHUNK_ROWS), y_BO.split(CHUNK_ROWS), strict=True):
            acts_BF = self.encode(x_part)
            totals.add(y_part, self.base(x_part), self.W_dec, acts_BF)
            parts.append(self.decode(acts_BF, x=x_part))
            errors.append((y_part - parts[-1]).norm(dim=1).double())
        l2 = float(torch.cat(errors).mean())
        reconstruction = torch.cat(parts).view_as(y)
        return Evaluation(reconstruction, totals.l0, l2, tuple(totals.fvu_by_prefix))

    def save(self, folder: str | Path) -> None:
        """Write `config.json`, `weights.safetensors`, the reference if there is one, and the
        digests of all; the folder appears whole or not at all. One that `save` wrote before is
        replaced; raises ConfigError for one that holds anything else."""
        from safetensors.torch import save_file

        folder = Path(folder).resolve()
        _refuse_foreign(folder)

        tensors = {name: value.contiguous().cpu() for name, value in self.state_dict().items()}
        with new_folder(folder) as temporary:
            write_json_atomic(temporary / CONFIG, self.config())
            # One metadata key only: safetensors writes several in random order.
            save_file(tensors, temporary / WEIGHTS, metadata={"format": "pt"})
            names = [CONFIG, WEIGHTS]
            if self.reference is not None:
                held = {k: v.contiguous().cpu() for k, v in self.reference.tensors().items()}
                save_file(held, temporary / REFERENCE, metadata={"format": "pt"})
                names.append(REFERENCE)
            digests = {name: file_digest(temporary / name) for name in names}
            write_json_atomic(temporary / DIGESTS, digests)

    def config(self) -> dict[str, Any]:
        """What `config.json` holds."""
        return {
            "format": "mtc-transcoder",
            "format_version": FORMAT_VERSION,
            "id": self.spec.id,
            "d_in": self.d_in,
            "d_out": self.d_out,
            "d_sae": self.d_sae,
            "dtype": str(self.W_enc.dtype).removeprefix("torch."),
            **self.spec.to_dict(),
            "skip": self.spec.skip,
            "source_site": str(self.spec.source),
            "target_site": str(self.spec.target),
            **self.provenance,
        }

    @classmethod
    def load(cls, folder: str | Path, device: str = "cpu") -> MatryoshkaTranscoder:
        """Read a folder that `save` wrote. Raises CheckpointError where it cannot be used."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        folder = Path(folder)
        try:
            config = json.loads((folder / CONFIG).read_bytes())
            tensors = load_file(folder / WEIGHTS, device=device)
            known = (folder / REFERENCE).exists()
            held = load_file(folder / REFERENCE, device=device) if known else None
        except (OSError, ValueError, SafetensorError) as error:
            again = "; restore it, or, in a run, delete it and run the manifest again"
            told = f"{folder} holds no readable transcoder: {error}"
            raise CheckpointError(told + again * (folder / CONFIG).exists()) from None
        spec = spec_of_config(folder, config)
        d_in, d_out = config.get("d_in"), config.get("d_out")
        _check_shapes(folder / WEIGHTS, tensors, expected_shapes(spec, d_in, d_out))
        transcoder = cls(spec, tensors)
        own = transcoder.config()
        transcoder.provenance = {key: value for key, value in config.items() if key not in own}
        if held is not None:
            _check_shapes(folder / REFERENCE, held, Reference.shapes(d_in, d_out))
            transcoder.reference = Reference.from_tensors(held)
        return transcoder

    @classmethod
    def from_pretrained(
        cls, address: str | Path, id: str | None = None, device: str = "cpu"
    ) -> MatryoshkaTranscoder:
        """One transcoder of `hf://org/name[@revision]`, fetched without the others, or a folder.

        id: its beginning will do if no other has it; None where there is one only. Raises HubError,
        and CheckpointError for a damaged one."""
        if not str(address).startswith("hf://"):
            folder = Path(address) / (id or "")
            ids = sorted(path.parent.name for path in Path(address).glob(f"*/{CONFIG}"))
            if ids and not (folder / CONFIG).exists():
                folder = Path(address) / one_of(ids, id, str(address))
            return cls.load(folder, device)
        from mtc_core.hub import fetch_transcoder

        return cls.load(fetch_transcoder(str(address), id), device)

    @classmethod
    def from_wandb(
        cls, artifact: str, id: str | None = None, device: str = "cpu"
    ) -> MatryoshkaTranscoder:
        """One transcoder of a W&B artifact, `[entity/]project/artifact[:version]`; the rest as
        `from_pretrained`."""
        from mtc_core.wandb_artifacts import fetch_wandb

        return cls.load(fetch_wandb(artifact, id), device)


def _refuse_foreign(folder: Path) -> None:
    own = {CONFIG, WEIGHTS, REFERENCE, DIGESTS}
    try:
        there = sorted(path.name for path in folder.iterdir())
    except FileNotFoundError:
        return
    except NotADirectoryError:
        raise ConfigError(f"{folder} is a file; name a folder to save to") from None
    if foreign := [name for name in there if name not in own]:
        raise ConfigError(
            f"{folder} holds {foreign[0]}, which saving there would delete; give it one of its own"
        )


def _check_shapes(
    file: Path, tensors: dict[str, Tensor], expected: dict[str, tuple[int, ...]]
) -> None:
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if found != expected:
        raise CheckpointError(f"{file} has tensors {found}, expected {expected}")


def expected_shapes(spec: TranscoderSpec, d_in: int, d_out: int) -> dict[str, tuple[int, ...]]:
    """Tensor shapes of a saved transcoder."""
    F = spec.d_sae
    return {
        "W_enc": (F, d_in),
        "b_enc": (F,),
        "W_dec": (F, d_out),
        "b_dec": (d_out,),
        "threshold": (F,),
        **({"W_skip": (d_out, d_in)} if spec.skip else {}),
    }
