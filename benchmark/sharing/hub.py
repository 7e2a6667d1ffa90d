"""Sites on the Hugging Face Hub: upload of one, and fetching its weights; `$HF_ENDPOINT` is obeyed.

A local folder stands wherever a repository does, so that what is fetched once runs without a
network. The client is an extra; its own login is used, and no token is read here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..experiments.run_config import OptionError

PREFIX = "hub:"
"""How the name of a method begins whose weights are on the hub: hub:ORG/REPO[@REVISION][#NAME]."""

REPOSITORY = re.compile(r"[\w.-]{1,96}/[\w.-]{1,96}")
INDEX = "adbench.json"
"""The list of a site's files, by which a later one knows that it may replace the folder."""

MISSING = "the hub needs huggingface_hub: pip install 'diffusion-adbench[hub]'"


class HubError(RuntimeError):
    """The hub cannot be reached, or refuses: one line, and what would do.

    >>> HubError("lab/brains has no such revision").exit_code
    5
    """

    exit_code = 5


@dataclass(frozen=True)
class HubSource:
    """Where weights are: a repository of the hub, or a local folder.

    name: of the weights in it; "" for the only ones        revision: None for the newest

    >>> HubSource("lab/brains").is_local
    False
    """

    place: str
    name: str = ""
    revision: str | None = None

    @property
    def is_local(self) -> bool:
        """Whether the place is a folder of this machine."""
        return Path(self.place).is_dir()


def parse_source(text: str) -> HubSource:
    """The source in `hub:ORG/REPO@REVISION#NAME`, or `hub:FOLDER#NAME`.

    Raises OptionError on anything else.

    >>> parse_source("hub:lab/brains@v1#anoddpm")
    HubSource(place='lab/brains', name='anoddpm', revision='v1')
    """
    place, _, name = text.removeprefix(PREFIX).partition("#")
    path = Path(place).expanduser()
    if path.is_dir():
        return HubSource(str(path), name)
    repository, _, revision = place.partition("@")
    if not REPOSITORY.fullmatch(repository):
        raise OptionError(
            f"{text!r} is neither hub:ORG/REPO, hub:ORG/REPO@REVISION#NAME, nor hub: and a folder "
            "that is there"
        )
    return HubSource(repository, name, revision or None)


def fetch_files(source: HubSource, names: Sequence[str]) -> Path:
    """The folder that holds the named files of a source, fetched if it is a repository.

    Raises HubError where the hub cannot be reached or has no such file, and nothing is cached.

    >>> fetch_files(HubSource("."), ["adbench.json"])
    PosixPath('.')
    """
    if source.is_local:
        return Path(source.place)
    hub = _client()
    with _hub_errors(source.place):
        paths = [
            hub.hf_hub_download(source.place, name, revision=source.revision, endpoint=_endpoint())
            for name in names
        ]
    root = Path(paths[0])
    for _ in Path(names[0]).parts:
        root = root.parent
    return root


def fetch_index(source: HubSource) -> Path:
    """The folder that holds the index of a source.

    >>> fetch_index(HubSource("."))
    PosixPath('.')
    """
    return fetch_files(source, [INDEX])


def upload_site(
    folder: Path, repository: str, files: Sequence[str], *, private: bool = True
) -> str:
    """Upload the named files of a site to a repository, in one commit; return its address.

    repository: ORG/REPO, created if it is not there        private: of one that is created
    Raises HubError where the hub cannot be reached or refuses.

    >>> upload_site(Path("site"), "brains", [])
    Traceback (most recent call last):
    adbench.benchmark.experiments.run_config.OptionError: --hub takes ORG/REPO, not 'brains'
    """
    require_repository(repository)
    hub = _client()
    with _hub_errors(repository):
        api = hub.HfApi(endpoint=_endpoint(), library_name="adbench")
        api.create_repo(repository, private=private, exist_ok=True)
        operations = [
            hub.CommitOperationAdd(path_in_repo=name, path_or_fileobj=str(folder / name))
            for name in files
        ]
        commit = api.create_commit(repository, operations, commit_message="adbench publish")
    return str(commit.commit_url)


def require_repository(repository: str) -> None:
    """Raise OptionError unless a text is ORG/REPO.

    >>> require_repository("lab/brains")
    """
    if not REPOSITORY.fullmatch(repository):
        raise OptionError(f"--hub takes ORG/REPO, not {repository!r}")


def _endpoint() -> str | None:
    """The hub's address; None for the client's own."""
    return os.environ.get("HF_ENDPOINT") or None


def _client() -> Any:
    try:
        import huggingface_hub
    except ImportError:
        raise HubError(MISSING) from None
    return huggingface_hub


@contextmanager
def _hub_errors(repository: str) -> Iterator[None]:
    """Raise what the client raises as one line of ours."""
    from huggingface_hub import errors

    local = "a local folder works, too: hub:FOLDER"
    try:
        yield
    except errors.OfflineModeIsEnabled:
        raise HubError(
            f"{repository} cannot be reached: HF_HUB_OFFLINE forbids it; {local}"
        ) from None
    except errors.LocalEntryNotFoundError:
        raise HubError(
            f"{repository} cannot be reached and is not in the cache of the hub; {local}"
        ) from None
    except errors.GatedRepoError:
        raise HubError(f"{repository} is gated: ask for access on its page, then log in") from None
    except errors.RepositoryNotFoundError:
        raise HubError(
            f"there is no repository {repository}, or it is private: log in with `hf auth login`"
        ) from None
    except errors.RevisionNotFoundError:
        raise HubError(f"{repository} has no such revision") from None
    except errors.EntryNotFoundError as error:
        raise HubError(
            f"{repository} lacks a file that a site of adbench has: {_first_line(error)}"
        ) from None
    except errors.HfHubHTTPError as error:
        status = getattr(error.response, "status_code", "?")
        hint = "; log in with `hf auth login`" if status in (401, 403) else ""
        raise HubError(f"{repository}: the hub refuses ({status}){hint}") from None
    except (OSError, RuntimeError, ValueError) as error:
        raise HubError(f"{repository} cannot be reached: {_first_line(error)}; {local}") from None


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
