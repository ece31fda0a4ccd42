"""Time, memory and disk of `features`.

    python benchmarks/features.py RUN [--text FILE] [--tokens N]   a run, in a process of its own
    python benchmarks/features.py RUN --parents [--text FILE]      are parents near in the weights?
    python benchmarks/features.py --synthetic [--rows 16384]       12 × 12,288 latents

The synthetic one is GPT-2-small in shape (d 768, 12 transcoders of 12,288 latents in four groups, k
64, vocabulary 50,257) with random weights: every latent is as likely to be on as any other, which
is the worst case for the strongest contexts. It times one transcoder, stage by stage, and
extrapolates to 12 and to a million tokens: what grows with the text by its rate over the second
half of the rows, the rest as it is.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from mtc_core.config import TranscoderSpec
from mtc_core.features.logits import Readout, promoted_tokens
from mtc_core.features.neighbours import nearest_by_decoder
from mtc_core.features.study import CHUNK, WORKING_BYTES, FeatureStudy, study_bytes
from mtc_core.selection import Kept
from mtc_core.sites import Site
from mtc_core.tokens.packing import Contexts
from mtc_core.tokens.tokenizer import TokenizerFacts
from mtc_core.transcoder import MatryoshkaTranscoder
from orchestrator.evaluating.listener import QUIET
from orchestrator.evaluating.subject import Subject
from orchestrator.evaluating.texts import EvaluationText, held_test_half, own_text
from orchestrator.features.reading import read_text, readings
from orchestrator.features.records import Records
from orchestrator.features.written import Written
from orchestrator.run_folder.folder import RunFolder

D, GROUPS, K, VOCABULARY, TRANSCODERS = 768, (768, 1536, 3072, 6912), 64, 50_257, 12
CONTEXT, MILLION, N, WINDOW, SHORTLIST = 128, 1_000_000, 8, 16, 16
CALL = "from orchestrator.cli import main; main()"


class Stages:
    """Seconds by stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def of(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - began


def measure_run(run: Path, options: list[str]) -> None:
    """The command itself, with the peak memory of its process."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "features"
        command = [sys.executable, "-c", CALL, "features", str(run), "--out", str(out), *options]
        began = time.perf_counter()
        subprocess.run(command, check=True)
        seconds = time.perf_counter() - began
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        pages = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    print(
        f"{seconds:.1f} s, {used.ru_utime + used.ru_stime:.1f} s of a core, "
        f"{used.ru_maxrss * 1024 / 1e9:.2f} GB resident at most, {pages / 1e6:.0f} MB written"
    )


def measure_parents(run: Path, text: str | None, tokens: int) -> None:
    """How often the parent is among the nearest earlier latents by weights."""
    subject = Subject.of(RunFolder(run.parent, run.name))
    torch.set_num_threads(subject.threads)
    model = subject.load_model()
    contexts = _text(subject, model.tokenizer, text, tokens).contexts
    suite = {id: MatryoshkaTranscoder.load(subject.run.transcoder(id).final) for id in subject.ids}
    studies = {id: FeatureStudy(tc, 1, 0) for id, tc in suite.items()}
    read_text(subject, model, readings(subject, studies), contexts, QUIET)
    print(
        f"{contexts.n_rows:,} rows; of the parents, among the {SHORTLIST} nearest earlier latents"
    )
    for id, study in studies.items():
        parents, _ = study.parents()
        shares = " ".join(
            f"{name} {_recall(weights, suite[id].spec, parents):.3f}"
            for name, weights in (("decoder", suite[id].W_dec), ("encoder", suite[id].W_enc))
        )
        print(f"{id}: {int((parents >= 0).sum())} have a parent; by {shares}")


def _recall(weights_FD: torch.Tensor, spec: TranscoderSpec, parents_F: torch.Tensor) -> float:
    unit_FD = torch.nn.functional.normalize(weights_FD, dim=1)
    hits = []
    for start, end in zip(spec.widths, spec.widths[1:], strict=False):
        near = (unit_FD[start:end] @ unit_FD[:start].T).topk(SHORTLIST, dim=1).indices
        parent = parents_F[start:end]
        hits.append((near == parent[:, None]).any(1)[parent >= 0])
    return float(torch.cat(hits).float().mean())


def _text(subject: Subject, tokenizer: object, path: str | None, tokens: int) -> EvaluationText:
    if path is None:
        return held_test_half(subject.run)
    facts = TokenizerFacts.from_hf(tokenizer)
    return own_text(path, subject.manifest.data.config(), facts, print, most=tokens)


def measure_synthetic(rows: int) -> None:
    """One transcoder of the shape, stage by stage; the rest extrapolated."""
    torch.manual_seed(0)
    torch.set_num_threads(2)
    tc = _random_transcoder()
    study = FeatureStudy(tc, N, WINDOW)
    for first in range(0, rows, step := max(CONTEXT, CHUNK // tc.d_sae // CONTEXT * CONTEXT)):
        if first <= rows // 2:  # what came before is no measure of what goes on
            stages, begun = Stages(), first
        size = min(step, rows - first)
        x_BI = torch.randn(size, D)
        number_B = torch.arange(first, first + size)
        contexts_B, positions_B = number_B // CONTEXT, number_B % CONTEXT
        with stages.of("encode"):
            acts_BF = tc.encode(x_BI)
        with stages.of("nonzeros"):
            kept = Kept.from_dense(acts_BF)
        with stages.of("counts"):
            study.firing.add(kept, size)
        with stages.of("pairs"):
            study.together.add(kept, size)
        with stages.of("strongest"):
            study.strongest.add(acts_BF, contexts_B, positions_B, kept)
    growing = sum(stages.seconds.values())
    with stages.of("parents"):
        study.parents()
    with stages.of("neighbours"):
        nearest_by_decoder(tc.W_dec, 5)
    readout = Readout(torch.ones(D), True, torch.randn(VOCABULARY, D))
    with stages.of("promoted tokens"):
        promoted_tokens(readout, tc.W_dec, 10)
    with stages.of("records and pages"):
        written = _write(study, readout, rows)
    on = float(study.firing.fired_F.sum()) / rows
    print(
        f"{rows:,} rows, {on:.0f} latents on in each; seconds, reading: the last {rows - begun:,}"
    )
    for name, seconds in stages.seconds.items():
        print(f"  {name:18} {seconds:7.2f}")
    fixed = sum(stages.seconds.values()) - growing
    reading = TRANSCODERS * growing * MILLION / (rows - begun) / 60
    tables = TRANSCODERS * study_bytes(GROUPS, N, WINDOW) + WORKING_BYTES
    weights = TRANSCODERS * 4 * 2 * D * tc.d_sae
    print(
        f"extrapolated to {TRANSCODERS} transcoders and {MILLION:,} tokens: {reading:.0f} min of "
        f"reading, without the model's own forward, and {TRANSCODERS * fixed / 60:.0f} min of what "
        f"comes after; tables {tables / 1e9:.1f} GB, weights {weights / 1e9:.1f} GB; pages "
        f"and JSON {TRANSCODERS * written / 1e9:.2f} GB"
    )


def _random_transcoder() -> MatryoshkaTranscoder:
    """Thresholds such that k of N(0, 1) rows are on."""
    d_sae = sum(GROUPS)
    spec = TranscoderSpec(
        source=Site.parse("0.resid_mid"), target=Site.parse("0.mlp_out"), group_sizes=GROUPS, k=K
    )
    W_enc, W_dec = (torch.nn.functional.normalize(torch.randn(d_sae, D), dim=1) for _ in "ed")
    cut = float(torch.special.ndtri(torch.tensor(1 - K / d_sae, dtype=torch.float64)))
    tensors = {
        "W_enc": W_enc, "b_enc": torch.zeros(d_sae), "W_dec": W_dec, "b_dec": torch.zeros(D),
        "threshold": torch.full((d_sae,), cut),
    }  # fmt: skip
    return MatryoshkaTranscoder(spec, tensors)


class _Words:
    """Token text of about the length of English."""

    def text(self, id: int) -> str:
        return f" w{id % 997}"

    def pieces(self, ids: list[int]) -> list:
        from mtc_core.tokens.pieces import Piece

        return [Piece(self.text(id), i, i + 1) for i, id in enumerate(ids)]


def _write(study: FeatureStudy, readout: Readout, rows: int) -> int:
    """Bytes of the pages."""
    ids_CT = torch.randint(0, VOCABULARY, (-(-rows // CONTEXT), CONTEXT)).int().numpy()
    text = EvaluationText("test", None, Contexts(ids_CT, ids_CT >= 0))
    records = Records(study, text.contexts, _Words(), readout, "")  # type: ignore[arg-type]
    with tempfile.TemporaryDirectory() as folder:
        Written(Path(folder)).write("synthetic", {}, text, records, study.transcoder.spec)
        return sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", nargs="?", type=Path)
    parser.add_argument("--text")
    parser.add_argument("--tokens", type=int, default=100_000)
    parser.add_argument("--parents", action="store_true")
    parser.add_argument("--synthetic", action="store_true")
    parser.add_argument("--rows", type=int, default=16_384)
    args = parser.parse_args()
    if args.synthetic:
        measure_synthetic(args.rows)
    elif not args.run:
        parser.error("give a RUN, or --synthetic")
    elif args.parents:
        measure_parents(args.run, args.text, args.tokens)
    else:
        text = ["--text", args.text] if args.text else []
        measure_run(args.run, [*text, "--tokens", str(args.tokens)])
    return 0


if __name__ == "__main__":
    sys.exit(main())
