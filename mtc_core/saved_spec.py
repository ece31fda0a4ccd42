"""What a saved transcoder's config.json says that it is. Loads without torch."""

from __future__ import annotations

from pathlib import Path

from mtc_core.checkpoint import CONFIG
from mtc_core.config import TranscoderSpec
from mtc_core.errors import CheckpointError, ConfigError, SiteError

FORMAT_VERSION = 1


def spec_of_config(folder: Path, config: dict) -> TranscoderSpec:
    """The spec that a config.json describes. Raises CheckpointError."""
    if not isinstance(config, dict) or (
        (config.get("format"), config.get("format_version")) != ("mtc-transcoder", FORMAT_VERSION)
    ):
        raise CheckpointError(
            f"{folder / CONFIG} is not of format mtc-transcoder version {FORMAT_VERSION}"
        )
    fields = TranscoderSpec.__dataclass_fields__
    try:
        older = {"skip": False}  # fields that first suites do not have
        return TranscoderSpec.from_dict({key: {**older, **config}[key] for key in fields})
    except (KeyError, TypeError, ConfigError, SiteError) as error:
        raise CheckpointError(f"{folder / CONFIG} describes no transcoder: {error!r}") from None
