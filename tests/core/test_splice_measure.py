"""What splicing measures: known answers, resumed, and what has no figure."""

import pytest
import torch
from torch.overrides import TorchFunctionMode

from mtc_core.errors import DataError
from mtc_core.splice.measure import SpliceMeasurement, working_bytes
from mtc_core.splice.score import CHUNK, Scored, figures, score
from tests.core.spliced import LAYERS, C, T, contexts, loaded, measured, stand
from tests.core.tiny_models import VOCAB_SIZE


def test_a_perfect_transcoder_recovers_everything_and_zero_ablation_nothing():
    stands = {
        f"{layer}": stand(f"{layer}.resid_mid", f"{layer}.mlp_out", lambda x, y: y)
        for layer in range(LAYERS)
    }
    stands |= {"2": stand("2.resid_mid", "2.mlp_out", lambda x, y: torch.zeros_like(y))}
    result = measured(loaded("llama"), stands)
    for layer in "01":
        perfect = result["transcoders"][layer]
        assert perfect["ce"] == result["ce_clean"] != perfect["ce_zero"]
        assert perfect["kl"] == 0 and perfect["top1_agreement"] == 1
        assert perfect["ce_recovered_zero"] in (1.0, None)
    zero = result["transcoders"]["2"]
    assert zero["ce"] == zero["ce_zero"] and zero["ce_recovered_zero"] in (0.0, None)
    assert zero["kl"] > 0
    # Ablation may help a random model by chance; then there is nothing to recover.
    recovered = [one["ce_recovered_zero"] for one in result["transcoders"].values()]
    assert any(value is not None for value in recovered)


def test_a_source_after_its_target_is_taken_from_the_clean_pass():
    stands = {"back": stand("2.resid_mid", "0.mlp_out", lambda x, y: y + 0 * x)}
    result = measured(loaded("llama"), stands)
    assert result["transcoders"]["back"]["source"] == "clean"
    assert result["transcoders"]["back"]["kl"] == 0
    assert result["joint"] is None and result["joint_problem"] == "there is one transcoder"


def test_extreme_rows_can_be_left_as_they_are():
    def is_extreme(x, y):
        return torch.arange(len(x)) % 2 == 0

    def only_extreme(x, y):
        seen.append(len(y))
        return y + 3

    seen = []
    _, rows_CT = contexts()
    stands = {"a": stand("0.resid_mid", "0.mlp_out", only_extreme, is_extreme)}
    result = measured(loaded("llama"), stands)["transcoders"]["a"]
    n = int(rows_CT.sum())
    assert seen == [n, n // 2]
    assert 0 < result["extreme_left"]["kl"] < result["kl"]


def test_two_transcoders_of_one_target_are_not_spliced_together():
    stands = {
        "a": stand("0.resid_mid", "0.mlp_out", lambda x, y: y),
        "b": stand("0.resid_pre", "0.mlp_out", lambda x, y: y),
    }
    result = measured(loaded("llama"), stands)
    assert result["joint"] is None and result["joint_problem"] == "2 transcoders predict 0.mlp_out"


def test_an_interrupted_measurement_goes_on_to_the_same_bits(monkeypatch):
    monkeypatch.setattr("mtc_core.splice.measure.LOGITS", T * VOCAB_SIZE)  # a context a chunk
    model = loaded("llama")
    stands = {
        f"{i}": stand(f"{i}.resid_mid", f"{i}.mlp_out", lambda x, y: 0.9 * y) for i in range(2)
    }
    whole = measured(model, stands)
    first = SpliceMeasurement(model, stands, "hf")
    assert first.chunk_contexts(T) == 1
    passes = first.run(*contexts())
    while first.chunks_done < 2:
        next(passes)
    next(passes)  # of the third chunk: lost
    saved = {name: tensor.clone() for name, tensor in first.state().items()}
    first.close()
    # `state` is taken between chunks; what the third has counted so far must not be in it.
    again = SpliceMeasurement(model, stands, "hf")
    again.load(saved)
    for _ in again.run(*contexts()):
        pass
    assert again.summary() == whole


def test_what_makes_the_model_infinite_is_left_out_and_the_rest_is_measured():
    stands = {
        "good": stand("0.resid_mid", "0.mlp_out", lambda x, y: y),
        "bad": stand("1.resid_mid", "1.mlp_out", lambda x, y: y * float("nan")),
    }
    result = measured(loaded("llama"), stands)
    assert list(result["transcoders"]) == ["good"] and result["joint"] is None
    assert "not finite" in result["left_out"]["bad"] and "not finite" in result["joint_problem"]


def test_a_text_without_a_token_to_predict_is_told():
    measurement = SpliceMeasurement(
        loaded("llama"), {"a": stand("0.resid_mid", "0.mlp_out", lambda x, y: y)}, "hf"
    )
    ids_CT, rows_CT = contexts()
    for _ in measurement.run(ids_CT[:, :2], rows_CT[:, :2]):
        pass
    with pytest.raises(DataError, match="contexts need 3 tokens or more"):
        measurement.summary()


def test_scores_equal_their_definitions():
    ids_CT, rows_CT = contexts(3)
    generator = torch.Generator().manual_seed(4)
    clean, edited = (torch.randn(C, T, 50, generator=generator) for _ in range(2))
    ids_CT = ids_CT % 50
    n, ce, kl, same, squares = score(edited, clean, Scored.of(ids_CT, rows_CT)).tolist()
    want = [0.0, 0.0, 0.0, 0.0, 0.0]
    for c in range(C):
        for t in range(T - 1):
            if rows_CT[c, t] and rows_CT[c, t + 1]:
                p, q = (side[c, t].double().softmax(0) for side in (clean, edited))
                want[0] += 1
                want[1] -= float(q[ids_CT[c, t + 1]].log())
                want[2] += float((p * (p / q).log()).sum())
                want[3] += float(p.argmax() == q.argmax())
                want[4] += float((p / q)[ids_CT[c, t + 1]].log()) ** 2
    assert (n, same) == (want[0], want[3])
    assert (ce, kl, squares) == pytest.approx((want[1], want[2], want[4]), rel=1e-5)


class Largest(TorchFunctionMode):
    """Notes the most elements that any tensor had."""

    elements = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        if isinstance(made, torch.Tensor):
            self.elements = max(self.elements, made.numel())
        return made


def test_scoring_copies_logits_of_a_few_positions_at_a_time():
    """A copy of all was as large as the logits, which for one long context may be gigabytes."""
    vocabulary, ids_CT = 70, torch.randint(70, (2, 3 * CHUNK))
    rows_CT = torch.rand(ids_CT.shape) < 0.8
    clean, edited = (torch.randn(*ids_CT.shape, vocabulary) for _ in range(2))
    at = Scored.of(ids_CT, rows_CT)
    with Largest() as seen:
        found = score(edited, clean, at)
    assert seen.elements <= CHUNK * vocabulary
    ce = torch.nn.functional.cross_entropy(edited[at.mask_CT], at.next_N, reduction="sum")
    assert int(found[0]) == len(at.next_N) > 2 * CHUNK
    assert float(found[1]) == pytest.approx(float(ce), rel=1e-5)


def test_the_memory_of_a_long_context_is_counted():
    """Measured, of clean and edited pass and of scoring, with a vocabulary of 256,000: GB."""
    for context_tokens, measured_gb in ((128, 1.12), (512, 1.90), (1024, 2.93)):
        assert measured_gb < working_bytes(context_tokens, 256_000) / 1e9 < 1.5 * measured_gb


def test_ce_recovered_is_not_given_where_ablation_does_not_hurt():
    total = torch.tensor([2.0, 6.0, 1.0, 1.0, 4.0], dtype=torch.float64)
    found = figures(total, 2.0, {"zero": 4.0, "mean": 1.5})
    assert found == {
        "ce": 3.0, "ce_increase": 1.0, "ce_increase_se": 0.5**0.5, "ce_recovered_zero": 0.5,
        "ce_recovered_mean": None, "kl": 0.5, "top1_agreement": 0.5,
    }  # fmt: skip
