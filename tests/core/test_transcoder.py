"""A trained transcoder: what encode, decode, evaluate, save and load promise."""

import hashlib
import json
import math

import pytest
import torch
from safetensors.torch import load_file, save_file

from mtc_core import MatryoshkaTranscoder, load_suite
from mtc_core.errors import CheckpointError, ConfigError, HubError, TrainingStopped
from mtc_core.held_out import HeldOut
from mtc_core.quality import Quality
from mtc_core.transcoder import CHUNK_ROWS
from tests.core import small


def trained(selection="batchtopk"):
    trainer = small.trainer({"selection": selection})
    small.run(trainer, 0, 20)
    held_out = HeldOut(trainer, 512)
    held_out.calibrate(*small.rows(512, seed=50))
    held_out.settle()
    return held_out.transcoder


@pytest.fixture(scope="module", params=["batchtopk", "topk"])
def tc(request):
    return trained(request.param)


def test_prefixes_run_from_the_bias_alone_to_the_whole_dictionary(tc):
    x, _ = small.rows(32, seed=7)
    acts = tc.encode(x)
    assert torch.equal(tc.decode(acts, prefix=0), tc.b_dec.expand(32, -1))
    for prefix, width in enumerate((8, 24, 48), start=1):
        wanted = acts[:, :width] @ tc.W_dec[:width] + tc.b_dec
        assert torch.equal(tc.decode(acts, prefix=prefix), wanted)
    assert torch.equal(tc.decode(acts), tc.decode(acts, prefix=3))
    assert torch.equal(tc(x), tc.decode(acts))
    assert not torch.allclose(tc.decode(acts, prefix=1), tc.decode(acts))
    for wrong in (4, -1):
        with pytest.raises(ConfigError, match=f"prefix is {wrong}; this transcoder has 3 groups"):
            tc.decode(acts, prefix=wrong)


def test_topk_keeps_the_k_largest_positive_of_each_row():
    tc = trained("topk")
    x, _ = small.rows(64, seed=7)
    tc.b_enc -= 0.6 * tc.pre_activations(x).amax()  # so that some rows have fewer than k positives
    pre = tc.pre_activations(x)
    mask = torch.zeros_like(pre).scatter_(1, pre.topk(5).indices, 1.0)
    assert torch.equal(tc.encode(x), pre.relu() * mask)
    counts = (tc.encode(x) > 0).sum(1)
    assert int(counts.min()) < 5 and int(counts.max()) <= 5


def test_batchtopk_gives_a_row_the_same_code_whatever_its_batch_mates():
    tc = trained()
    x, _ = small.rows(64, seed=7)
    pre = tc.pre_activations(x)
    assert torch.equal(tc.encode(x), pre.relu() * (pre > tc.threshold))
    assert float(tc.threshold[0]) > 0
    together, alone = tc.encode(x), torch.cat([tc.encode(row[None]) for row in x])
    assert torch.equal(together > 0, alone > 0)
    assert torch.allclose(together, alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("lead", [(), (1,), (6,), (2, 3), (2, 1, 3)])
def test_any_leading_dimensions(tc, lead):
    n = max(1, int(torch.tensor(lead).prod()) if lead else 1)
    x, _ = small.rows(n, seed=7)
    acts = tc.encode(x.view(*lead, -1) if lead else x[0])
    assert acts.shape == (*lead, tc.d_sae)
    assert tc.decode(acts).shape == (*lead, tc.d_out)
    assert torch.allclose(acts.reshape(n, -1), tc.encode(x), rtol=1e-4, atol=1e-5)


def test_half_precision_rows_are_read(tc):
    x, _ = small.rows(8)
    assert tc.encode(x.bfloat16()).dtype == torch.float32


def test_a_wrong_width_is_named(tc):
    with pytest.raises(ConfigError, match=r"x is 7 wide; .* 0\.resid_mid, which is 20 wide"):
        tc.encode(torch.zeros(3, 7))
    for shape in ((3, 1), (4, 12), (3, 13)):
        with pytest.raises(ConfigError, match=r"0\.mlp_out, which is 12 wide"):
            tc.evaluate(torch.zeros(3, 20), torch.zeros(*shape))


def test_evaluate_equals_its_formulas_and_changes_nothing(tc):
    x, y = small.rows(60, seed=8)
    before = {name: tensor.clone() for name, tensor in tc.state_dict().items()}
    result = tc.evaluate(x.view(4, 15, -1), y.view(4, 15, -1))
    acts = tc.encode(x).double()
    scatter = (y - y.double().mean(0)).square().sum()
    for prefix in (1, 2, 3):
        error = y - tc.decode(acts.float(), prefix).double()
        fvu = result.fvu_by_prefix[prefix - 1]
        assert fvu == pytest.approx(float(error.square().sum() / scatter), rel=1e-5)
    assert result.fvu == result.fvu_by_prefix[-1] < 1
    assert result.l0 == float((acts > 0).sum()) / 60
    assert result.l2 == pytest.approx(float(error.norm(dim=1).mean()), rel=1e-5)
    assert torch.allclose(result.reconstruction.view(60, -1), tc(x))
    small.same_bits(before, tc.state_dict())


@pytest.mark.parametrize("n", [0, 1, CHUNK_ROWS, 2 * CHUNK_ROWS + 300])
def test_evaluate_takes_so_many_rows_at_once_and_no_more(tc, monkeypatch, n):
    """Activations are dense: 12,288 of each of 5,000 rows took more than a gigabyte."""
    x, y = small.rows(n, seed=int(torch.randint(2**31, ())))
    taken, encode = [], MatryoshkaTranscoder.encode

    def counted(self, x):
        taken.append(len(x))
        return encode(self, x)

    monkeypatch.setattr(MatryoshkaTranscoder, "encode", counted)
    result = tc.evaluate(x, y)
    assert sum(taken) == n and max(taken) <= CHUNK_ROWS
    assert torch.allclose(result.reconstruction, tc(x), rtol=1e-5, atol=1e-5)
    if n > 1:
        error = (y - tc(x)).double()
        scatter = (y - y.double().mean(0)).square().sum()
        assert result.fvu == pytest.approx(float(error.square().sum() / scatter), rel=1e-4)
        assert result.l2 == pytest.approx(float(error.norm(dim=1).mean()), rel=1e-4)
        assert result.l0 == pytest.approx(float((tc.encode(x) > 0).sum()) / n, abs=2 / n)


@pytest.mark.parametrize("side", [0, 1])
def test_rows_with_nan_have_no_finite_figure(tc, side):
    """Of a source that is NaN b_dec alone was measured, to an FVU like any other."""
    rows = small.rows(40, seed=int(torch.randint(2**31, ())))
    rows[side][int(torch.randint(40, ())), 3] = torch.nan
    result = tc.evaluate(*rows)
    assert all(map(math.isnan, (*result.fvu_by_prefix, result.l2)))
    quality = Quality(tc)
    quality.add(*rows)
    with pytest.raises(TrainingStopped, match="activations are not finite"):
        quality.summary()


def test_save_and_load_keep_every_bit(tc, tmp_path):
    tc.provenance = {"run": "x", "trained_tokens": 7}
    tc.save(tmp_path / "deep" / "final")
    again = MatryoshkaTranscoder.load(tmp_path / "deep" / "final")
    small.same_bits(tc.state_dict(), again.state_dict())
    assert again.spec == tc.spec and again.provenance == tc.provenance
    x, _ = small.rows(16)
    assert torch.equal(again(x), tc(x))
    tc.save(tmp_path / "deep" / "final")  # over itself
    small.same_bits(
        MatryoshkaTranscoder.load(tmp_path / "deep/final").state_dict(), again.state_dict()
    )


def test_its_reference_goes_where_it_goes_and_stays_exact():
    tc = trained()
    assert tc.reference.mu_I.dtype == torch.float64
    before = tc.reference.mu_I.clone()
    tc = tc.half()
    assert tc.W_enc.dtype == torch.float16 and torch.equal(tc.reference.mu_I, before)
    tc = tc.to("meta")
    assert tc.reference.mu_I.is_meta and tc.reference.ridge.W_IO.is_meta


def test_a_saved_transcoder_vouches_for_its_bytes(tc, tmp_path):
    tc.save(tmp_path / "final")
    digests = json.loads((tmp_path / "final" / "sha256.json").read_text())
    assert list(digests) == ["config.json", "weights.safetensors", "reference.safetensors"]
    for name, digest in digests.items():
        content = (tmp_path / "final" / name).read_bytes()
        assert digest == hashlib.sha256(content).hexdigest()
    tc.save(tmp_path / "again")
    files = [sorted((tmp_path / folder).iterdir()) for folder in ("final", "again")]
    assert [p.read_bytes() for p in files[0]] == [p.read_bytes() for p in files[1]]
    (tmp_path / "final" / "sha256.json").unlink()  # saved before there were digests
    small.same_bits(MatryoshkaTranscoder.load(tmp_path / "final").state_dict(), tc.state_dict())


def test_the_documented_formula_holds_on_the_file_alone(tmp_path):
    tc = trained()
    tc.save(tmp_path / "final")
    w = load_file(tmp_path / "final" / "weights.safetensors")
    x, _ = small.rows(64, seed=9)
    a = torch.relu(x @ w["W_enc"].T + w["b_enc"])
    y = (a * (a > w["threshold"])) @ w["W_dec"] + w["b_dec"]
    assert torch.allclose(y, tc(x), rtol=1e-5, atol=1e-5)
    shapes = {name: list(tensor.shape) for name, tensor in w.items()}
    wanted = {"W_enc": [48, 20], "b_enc": [48], "W_dec": [48, 12], "b_dec": [12]}
    assert shapes == wanted | {"threshold": [48]}
    assert (w["W_dec"].double().norm(dim=1) - 1).abs().max() < 1e-6
    config = json.loads((tmp_path / "final" / "config.json").read_text())
    assert (config["selection"], config["k"], config["d_sae"]) == ("batchtopk", 5, 48)


def edited(change):
    def damage(folder):
        path = folder / "config.json"
        config = json.loads(path.read_text())
        change(config)
        path.write_text(json.dumps(config))

    return damage


def one_tensor_short(folder):
    tensors = load_file(folder / "weights.safetensors")
    del tensors["b_dec"]
    save_file(tensors, folder / "weights.safetensors")


def truncated(folder):
    path = folder / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


DAMAGE = {
    "no config": lambda folder: (folder / "config.json").unlink(),
    "no weights": lambda folder: (folder / "weights.safetensors").unlink(),
    "not json": lambda folder: (folder / "config.json").write_text("{"),
    "not text": lambda folder: (folder / "config.json").write_bytes(b"\xff\xfe\x00"),
    "a list": lambda folder: (folder / "config.json").write_text("[]"),
    "foreign": lambda folder: (folder / "config.json").write_text('{"architecture": "topk"}'),
    "later version": edited(lambda c: c.update(format_version=99)),
    "no k": edited(lambda c: c.pop("k")),
    "no d_in": edited(lambda c: c.pop("d_in")),
    "other groups": edited(lambda c: c.update(group_sizes=[8, 16])),
    "bad groups": edited(lambda c: c.update(group_sizes=None)),
    "bad k": edited(lambda c: c.update(k=0)),
    "bad site": edited(lambda c: c.update(source="nowhere")),
    "one tensor short": one_tensor_short,
    "truncated": truncated,
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_or_foreign_folder_is_named(tmp_path, damage):
    folder = tmp_path / "final"
    trained().save(folder)
    DAMAGE[damage](folder)
    with pytest.raises(CheckpointError, match=str(folder)):
        MatryoshkaTranscoder.load(folder)


def test_an_absent_folder_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="absent"):
        MatryoshkaTranscoder.load(tmp_path / "absent")


def test_a_suite_is_every_finished_transcoder_by_id(tmp_path):
    with pytest.raises(CheckpointError, match="is no run folder: there is no"):
        load_suite(tmp_path)
    (tmp_path / "transcoders").mkdir()
    with pytest.raises(CheckpointError, match="holds no finished transcoder"):
        load_suite(tmp_path)
    first, second = trained(), trained("topk")
    for one in (first, second):
        one.save(tmp_path / "transcoders" / one.spec.id / "final")
    (tmp_path / "transcoders" / "unfinished" / "checkpoints").mkdir(parents=True)
    suite = load_suite(tmp_path)
    assert suite.keys() == {first.spec.id, second.spec.id}
    small.same_bits(suite[second.spec.id].state_dict(), second.state_dict())


@pytest.mark.parametrize("selection", ["batchtopk", "topk"])
def test_a_transcoder_can_be_differentiated_through(selection):
    tc = trained(selection)
    x = torch.randn(6, tc.d_in, requires_grad=True)
    acts = tc.encode(x)
    tc.decode(acts).sum().backward()
    by_hand = ((acts > 0).float() * tc.W_dec.sum(1)) @ tc.W_enc
    assert torch.allclose(x.grad, by_hand, atol=1e-5)


@pytest.mark.parametrize("foreign", ["notes.txt", "sub", ".git"])
def test_nothing_of_the_users_is_deleted_where_one_is_saved(tmp_path, foreign, monkeypatch):
    folder = tmp_path / "mine"
    trained().save(folder)
    second = trained("topk")
    second.save(folder)  # its own is replaced
    assert MatryoshkaTranscoder.load(folder).spec == second.spec
    (folder / foreign).mkdir()
    monkeypatch.chdir(folder)
    for name in (folder, "."):
        with pytest.raises(ConfigError, match=f"{foreign}, which saving there would delete"):
            trained().save(name)
    assert (folder / foreign).exists() and MatryoshkaTranscoder.load(folder).spec == second.spec
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ConfigError, match="is a file"):
        trained().save(tmp_path / "file")


def test_one_of_a_folder_is_named_as_one_of_the_hub(tmp_path):
    first, second = trained(), trained("topk")
    first.save(tmp_path / "L00.one")
    assert MatryoshkaTranscoder.from_pretrained(tmp_path).spec == first.spec
    second.save(tmp_path / "L01.two")
    for id, one in (("L00", first), ("L01.two", second)):
        assert MatryoshkaTranscoder.from_pretrained(tmp_path, id).spec == one.spec
    with pytest.raises(HubError, match=r"holds 2 transcoders; name one of L00\.one, L01\.two"):
        MatryoshkaTranscoder.from_pretrained(tmp_path)
    with pytest.raises(HubError, match="no transcoder 'L07'"):
        MatryoshkaTranscoder.from_pretrained(tmp_path, "L07")
