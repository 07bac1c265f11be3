"""What a hub id names: config, tokenizer and adapter at one commit, without a model's weights."""

from pathlib import Path

from evals.errors import InputError


def hub_folder(hub_id: str, revision: str | None, offline: bool) -> Path:
    """The folder in the local cache, called by its commit; the weights follow when the engine
    starts.

    Raises InputError where the hub's model is gated, or not to be had.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    small = ["*.json", "*.model", "*.jinja", "*.txt", "*.tiktoken", "adapter_model.*"]
    try:
        found = snapshot_download(
            hub_id, revision=revision, allow_patterns=small, local_files_only=offline
        )
    # First: it is a RepositoryNotFoundError too.
    except GatedRepoError:
        raise InputError(
            f"{hub_id} is gated. Accept its licence on https://huggingface.co/{hub_id} and set"
            " HF_TOKEN to your token."
        ) from None
    except RevisionNotFoundError:
        raise InputError(f"{hub_id} has no revision {revision!r}.") from None
    except RepositoryNotFoundError:
        raise InputError(
            f"No folder {hub_id} is here, and no such model on the hub, or it is private: check the"
            " name, or set HF_TOKEN."
        ) from None
    except LocalEntryNotFoundError:
        what = (
            "is not in the local cache and --offline is set"
            if offline
            else "is not in the local cache and the hub cannot be reached"
        )
        raise InputError(
            f"No folder {hub_id} is here, and as a hub id it {what}. Download it first, or name a"
            " local folder."
        ) from None
    except Exception as error:
        raise InputError(
            f"No folder {hub_id} is here, and as a hub id it could not be read"
            f" ({type(error).__name__}). Check the connection, or name a local folder."
        ) from error
    return Path(found)
