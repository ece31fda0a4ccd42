"""Documents of a dataset on the Hugging Face Hub, in its own order, never through its shuffle
(whose buffer cannot be resumed). `datasets` loads inside functions only.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mtc_core.credentials import ODD_TOKEN
from mtc_core.errors import DataError, NotOpened, ReadingStopped
from mtc_core.tokens.data_config import DataConfig
from mtc_core.tokens.text_files import as_text, pick


def open_dataset(data: DataConfig) -> Any:
    """The dataset as a `datasets.IterableDataset`. Raises NotOpened with what the Hub said."""
    import datasets
    import httpx

    try:
        dataset = datasets.load_dataset(
            data.path,
            name=data.subset,
            split=data.split,
            revision=data.revision,
            streaming=data.streaming,
        )
    except (
        OSError,
        ValueError,
        RuntimeError,
        httpx.HTTPError,
        datasets.exceptions.DatasetsError,
    ) as error:
        raise NotOpened(
            f"data.path: {data.path!r} is no local file or folder, and as a dataset on the Hub "
            f"(subset {data.subset}, split {data.split}, revision {data.revision}) it could not be "
            f"opened: {_first_lines(error)}. Check data.path, data.subset, data.split and the "
            f"network; a gated dataset needs HF_TOKEN"
        ) from error
    return dataset if data.streaming else dataset.to_iterable_dataset()


def hub_commit(data: DataConfig) -> str:
    """The commit that data.revision stands for now. Raises DataError."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HFValidationError, HTTPError

    try:
        commit = HfApi().dataset_info(data.path, revision=data.revision, timeout=10).sha
    except UnicodeError as error:  # of httpx, which makes a header of the token
        raise DataError(f"data.path: {data.path!r}: {ODD_TOKEN}") from error
    except (HTTPError, HFValidationError, OSError) as error:
        raise DataError(
            f"data.path: {data.path!r} is no local file or folder, and the Hub did not answer for "
            f"a dataset of that name (revision {data.revision}): {_first_lines(error)}. Check "
            f"data.path, data.revision and the network; a gated dataset needs HF_TOKEN"
        ) from error
    assert commit, "the Hub names the commit of every revision"
    return commit


def read_dataset(dataset: Any, data: DataConfig, position: dict[str, Any] | None) -> Iterator:
    """Yield (text, position) from an IterableDataset, going on after `position`."""
    import datasets
    import httpx

    count = position["examples"] if position else 0
    if position and position["state"] is not None:
        dataset.load_state_dict(position["state"])
    elif count:
        dataset = dataset.skip(count)
    examples = iter(dataset)
    while True:
        try:
            example = next(examples, None)
        except (OSError, httpx.HTTPError) as error:  # the latter are no OSErrors
            raise ReadingStopped(
                f"{data.path}: reading broke off after {count} examples: {_first_lines(error)}"
            ) from error
        except (ValueError, datasets.exceptions.DatasetsError) as error:
            raise DataError(
                f"{data.path}: example {count + 1} cannot be read: {_first_lines(error)}; choose "
                "another data.path or data.revision"
            ) from error
        if example is None:
            return
        count += 1
        where = f"{data.path}, example {count}"
        text = as_text(pick(example, data.column, where), data.column, where)
        yield text, {"examples": count, "state": _state(dataset)}


def _state(dataset: Any) -> dict[str, Any] | None:
    """The dataset's own position, or None for kinds that have none and are skipped through."""
    try:
        return dataset.state_dict()
    except NotImplementedError:
        return None


def _first_lines(error: BaseException) -> str:
    return " ".join(str(error).split())[:400] or type(error).__name__
