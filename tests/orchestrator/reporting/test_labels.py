"""Short names tell transcoders apart, and say no more than that takes."""

from orchestrator.reporting.labels import few, is_grid, name_all


def spec(source, target, **more):
    return {"source": source, "target": target, "group_sizes": [8, 8], "k": 4, "seed": 0, **more}


def labels(*specs):
    named = name_all({f"id-{n:08x}": one for n, one in enumerate(specs)})
    return [one.label for one in named.values()]


def mlp(layer, target=None, **more):
    other = layer if target is None else target
    return spec(f"blocks.{layer}.hook_resid_mid", f"blocks.{other}.hook_mlp_out", **more)


def test_one_pair_in_every_layer_is_its_layer():
    assert labels(mlp(0), mlp(11)) == ["L00", "L11"]


def test_pairs_across_layers_are_both_ends():
    assert labels(mlp(0), mlp(2, 5)) == ["L00", "L02→L05"]


def test_several_pairs_in_a_layer_are_told_by_their_sites():
    other = spec("blocks.0.ln1.hook_out", "blocks.0.hook_attn_out")
    assert labels(mlp(0), other) == ["L00 resid_mid→mlp_out", "L00 ln1_out→attn_out"]


def test_hooks_without_a_layer_keep_their_names():
    outside = spec("hook_embed", "blocks.0.hook_mlp_out")
    assert labels(outside, mlp(1)) == ["hook_embed→L00.mlp_out", "L01 resid_mid→mlp_out"]


def test_a_sweep_is_told_by_what_differs_where_it_has_to_be():
    assert labels(mlp(0, k=4), mlp(0, k=8), mlp(1, k=4)) == ["L00 · k 4", "L00 · k 8", "L01"]


def test_what_no_key_tells_apart_is_told_by_its_hash():
    assert labels(mlp(0), mlp(0)) == ["L00 · 00000000", "L00 · 00000001"]


def test_a_picture_has_variants_as_colours_where_they_fill_it():
    def grid(*specs):
        return is_grid(name_all({str(n): one for n, one in enumerate(specs)}))

    assert grid(mlp(0, k=4), mlp(0, k=8), mlp(1, k=4), mlp(1, k=8))
    assert not grid(mlp(0, k=4), mlp(1, k=8)), "no site has two: one bar each is enough"
    assert not grid(mlp(0), mlp(1))
    assert not grid(*(mlp(0, seed=seed) for seed in range(9))), "more than there are colours"


def test_many_are_counted():
    assert few(["a", "b"]) == "a, b"
    assert few(list("abcdef")) == "a, b, c, d and 2 more"
    assert few(list("abcdef"), of=6) == "all 6"
    assert few(list("ab"), of=2) == "a, b"
