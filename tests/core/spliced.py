"""Tiny models and stands for tests of splicing."""

import torch

from mtc_core.model.model_shape import ModelShape
from mtc_core.model.model_source import LoadedModel
from mtc_core.sites import Site
from mtc_core.splice.measure import SpliceMeasurement, Stand
from tests.core.tiny_models import tiny_model

C, T, LAYERS = 3, 12, 3


def loaded(family):
    model = tiny_model(family, LAYERS)
    shape = ModelShape.from_config(model.config.to_dict())
    return LoadedModel(model, None, shape, "", family)


def contexts(seed=0):
    generator = torch.Generator().manual_seed(seed)
    ids_CT = torch.randint(0, 256, (C, T), generator=generator)
    rows_CT = torch.rand(C, T, generator=generator) < 0.8
    rows_CT[:, 0] = False
    return ids_CT, rows_CT


def site(text):
    return Site.parse(text)


def stand(source, target, predict, extreme=lambda x, y: torch.zeros(len(x), dtype=torch.bool)):
    variants = {
        "whole": predict,
        "zero": lambda x, y: torch.zeros_like(y),
        "mean": lambda x, y: y.mean(0).expand_as(y),
    }
    return Stand(site(source), site(target), variants, extreme)


def measured(model, stands, provider="hf", seed=0):
    measurement = SpliceMeasurement(model, stands, provider)
    for _ in measurement.run(*contexts(seed)):
        pass
    measurement.close()
    return measurement.summary()
