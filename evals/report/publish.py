"""A model card on the Hugging Face hub brought up to date by a pull request, and a run's items put
into a data set there. Token, address and cache are huggingface_hub's own (`hf auth login`,
HF_TOKEN, HF_ENDPOINT).
"""

import contextlib
import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from evals.errors import EnvironmentFault, InputError, first_line
from evals.registry import task_variant
from evals.report.card import RESULTS, renewed
from evals.report.front_matter import NOT_A_VALUE, read_yaml
from evals.report.leaderboards import PREFIX, as_yaml
from evals.report.model_index import is_called
from evals.storage.run_folder import RunFolder

README = "README.md"
TITLE = "Evaluation results"
_NON_COMMERCIAL = re.compile(r"\bNC\b")


class Change(NamedTuple):
    """One file in a repository; None where it is not there."""

    path: str
    before: str | None
    after: str | None


@dataclass(frozen=True, slots=True)
class Proposal:
    """What a pull request would change. base: the commit it was made from.  left_out: what is not
    in it, a sentence each.
    """

    repo: str
    base: str
    changes: tuple[Change, ...]
    left_out: tuple[str, ...]

    def diff(self) -> str:
        """The changes as a unified diff."""
        found = []
        for path, before, after in self.changes:
            old, new = ((text or "").splitlines(keepends=True) for text in (before, after))
            names = (f"a/{path}" if before is not None else "/dev/null"), f"b/{path}"
            for line in difflib.unified_diff(old, new, names[0], names[1]):
                found.append(line if line.endswith("\n") else f"{line}\n")
        return "".join(found)


class Items(NamedTuple):
    """A run's items for a data set of the hub. url: where they will be.  left_out: those that may
    not be passed on, a sentence each.
    """

    repo: str
    url: str
    files: Mapping[str, Path]
    left_out: tuple[str, ...]


def require_token() -> None:
    """Raise InputError where there is no token to write with."""
    from huggingface_hub import get_token

    if get_token() is None:
        raise InputError(
            "There is no token for the hub. Log in with `hf auth login`, or set HF_TOKEN to one"
            " that may write."
        )


def propose(
    repo: str,
    runs: Sequence[Path],
    source: str | None = None,
    card: str | None = None,
    boards: Path | None = None,
) -> Proposal:
    """The model card in a repository brought up to date with runs, against what is there now.

    A number that stands there already, in another's file or in an open pull request, is left out.
    source, card, boards: see evals.report.card.renewed.  Raises InputError where the repository is
    not to be had or is of another model, EnvironmentFault where the hub does not answer.
    """
    model = RunFolder(runs[0]).read_json("summary.json")["model"]
    if not (is_called(repo, model) or is_called(repo.rsplit("/", 1)[-1], model)):
        raise InputError(
            f"{runs[0]} is of {model['name']}, and its numbers would stand on the card of {repo}."
            " If that is the same model, give the run its name (evals run once more with --name"
            " and the same --out asks nothing anew)."
        )
    with _hub(repo):
        there = _Repo.at(repo, None)
        if README not in there.files:
            raise InputError(f"{repo} has no {README}. Make the card first.")
        before = there.read(README)
        new = renewed(before, runs, source, card, boards)
        said = list(new.left_out)
        changes = [Change(README, before, new.text)]
        taken = dict(_taken(there, there, repo))
        for request in _open_requests(repo):
            its = _Repo.at(repo, request.git_reference)
            where = f"pull request {request.url}"
            taken |= dict(_taken(its, there, where))
            if README in its.files and its.read(README) == new.text != before:
                said.append(f"{where} has this {README} already")
                changes = []
        ours = {name for name in there.results if name.startswith(f"{RESULTS}/{PREFIX}")}
        for name in sorted(ours | {f"{RESULTS}/{name}" for name in new.entries}):
            entries = new.entries.get(name.rpartition("/")[2], [])
            doubled = [taken[key] for one in entries if (key := _key(one)) in taken]
            said += doubled
            if not doubled:
                old = there.read(name) if name in ours else None
                changes.append(Change(name, old, as_yaml(entries) if entries else None))
    changed = tuple(one for one in changes if one.before != one.after)
    return Proposal(repo, there.commit, changed, tuple(said))


def open_request(proposal: Proposal) -> str:
    """Open the pull request; its address.

    Raises InputError where the token may not, EnvironmentFault where the repository changed
    meanwhile or the hub does not answer.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    require_token()
    with _hub(proposal.repo):
        if _Repo.at(proposal.repo, None).commit != proposal.base:
            raise EnvironmentFault(_changed(proposal.repo))
        done = HfApi().create_commit(
            proposal.repo,
            [
                CommitOperationDelete(path)
                if after is None
                else CommitOperationAdd(path, after.encode())
                for path, _, after in proposal.changes
            ],
            commit_message=TITLE,
            create_pr=True,
            parent_commit=proposal.base,
        )
    return str(done.pr_url)


def items_of(run: Path, repo: str) -> Items:
    """What of a run may be put into a data set, a folder called after the run's. Raises InputError
    where the folder is no finished run.
    """
    from huggingface_hub import constants

    folder = RunFolder(run)
    summary, record = folder.read_json("summary.json"), folder.read_json("run.json")
    name = run.resolve().name
    files, left_out = {f"{name}/summary.json": run / "summary.json"}, []
    for task in record["tasks"]:
        if task in record["skipped"]:
            continue
        data = task_variant(summary, task).cls.dataset
        if _NON_COMMERCIAL.search(data.licence.replace("-", " ")):
            left_out.append(
                f"the items of {task} stay here: the licence of {data.hub_id} ({data.licence})"
                " allows no commercial use"
            )
            continue
        files[f"{name}/{task}.jsonl.gz"] = folder.samples_path(task)
    url = f"{constants.ENDPOINT}/datasets/{repo}/tree/main/{name}"
    return Items(repo, url, files, tuple(left_out))


def upload(items: Items, *, public: bool = False) -> None:
    """Put the items into their data set, which is made where it is not there, private unless
    `public`. Raises InputError where it is public and was not to be or the token may not write,
    EnvironmentFault where the hub does not answer.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    require_token()
    with _hub(items.repo, "data set"):
        api = HfApi()
        api.create_repo(items.repo, repo_type="dataset", private=not public, exist_ok=True)
        if not public and not api.dataset_info(items.repo).private:
            raise InputError(
                f"The data set {items.repo} is public. Add --public if the items are to be, or name"
                " another."
            )
        api.create_commit(
            items.repo,
            [CommitOperationAdd(path, str(file)) for path, file in items.files.items()],
            commit_message=f"Items of {items.url.rpartition('/')[2]}",
            repo_type="dataset",
        )


# --- the hub --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Repo:
    """A repository at one commit."""

    repo: str
    commit: str
    files: frozenset[str]

    @classmethod
    def at(cls, repo: str, revision: str | None) -> "_Repo":
        from huggingface_hub import HfApi

        info = HfApi().model_info(repo, revision=revision)
        return cls(repo, str(info.sha), frozenset(one.rfilename for one in info.siblings or ()))

    def read(self, path: str) -> str:
        from huggingface_hub import HfApi

        file = HfApi().hf_hub_download(self.repo, path, revision=self.commit)
        try:
            return Path(file).read_bytes().decode("utf-8")
        except UnicodeDecodeError as error:
            raise InputError(f"{path} in {self.repo} is no UTF-8 text ({error}).") from error

    @property
    def results(self) -> list[str]:
        """The paths of its result files."""
        return sorted(
            path
            for path in self.files
            if path.startswith(f"{RESULTS}/") and path.endswith((".yaml", ".yml"))
        )


def _open_requests(repo: str) -> list[Any]:
    from huggingface_hub import HfApi

    return list(
        HfApi().get_repo_discussions(repo, discussion_type="pull_request", discussion_status="open")
    )


def _taken(its: _Repo, main: _Repo, where: str) -> Iterator[tuple[tuple[str, str], str]]:
    """The leaderboards' tasks that a repository has a number for, each with a sentence that says
    so: of main all but ours, which are renewed; of a pull request what it brings.
    """
    for path in its.results:
        is_renewed = path.rpartition("/")[2].startswith(PREFIX)
        if is_renewed if its is main else path in main.files and its.read(path) == main.read(path):
            continue
        for entry in _entries(its.read(path)):
            key = _key(entry)
            value = entry.get("value")
            yield key, f"{where} has {value} for {key[0]} ({key[1]}) already, in {path}"


def _entries(text: str) -> list[dict[str, Any]]:
    """The entries of someone's result file; none where it cannot be read, which the hub shows no
    number of either.
    """
    import yaml

    try:
        found = read_yaml(text)
    except (yaml.YAMLError, *NOT_A_VALUE):
        return []
    rows = found if isinstance(found, list) else []
    return [one for one in rows if isinstance(one, dict) and isinstance(one.get("dataset"), dict)]


def _key(entry: Mapping[str, Any]) -> tuple[str, str]:
    return str(entry["dataset"].get("id")), str(entry["dataset"].get("task_id"))


def _changed(repo: str) -> str:
    return f"{repo} changed meanwhile, and nothing was sent. The same command takes its new card."


@contextlib.contextmanager
def _hub(repo: str, what: str = "model") -> Iterator[None]:
    """Errors of the hub's client as one sentence each."""
    from huggingface_hub import errors
    from huggingface_hub.utils import disable_progress_bars

    disable_progress_bars()
    try:
        yield
    except (InputError, EnvironmentFault):
        raise
    except errors.RepositoryNotFoundError:
        raise InputError(
            f"The hub has no {what} {repo}, or your token may not see it. Check the name, or log in"
            " with `hf auth login`."
        ) from None
    except errors.HFValidationError as error:
        raise InputError(f"{repo} is no name on the hub: {first_line(error)}") from None
    except errors.OfflineModeIsEnabled:
        raise InputError("HF_HUB_OFFLINE is set, and the hub is not asked. Unset it.") from None
    except errors.HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        if status in (401, 403):
            raise InputError(
                f"Your token has no right to write in {repo} ({status}). Use one that has: hf auth"
                " login, or HF_TOKEN."
            ) from None
        if status in (409, 412):
            raise EnvironmentFault(_changed(repo)) from None
        if status == 400:
            raise InputError(f"The hub refuses this for {repo}: {_said(error)}") from None
        raise EnvironmentFault(_no_answer(error)) from error
    except ValueError as error:
        raise InputError(f"The hub refuses this for {repo}: {_said(error)}") from None
    except Exception as error:
        # Its client's own library has had several names: httpx, httpx2.
        if isinstance(error, OSError) or type(error).__module__.startswith("http"):
            raise EnvironmentFault(_no_answer(error)) from error
        raise


def _said(error: Exception) -> str:
    return " ".join(str(error).split())


def _no_answer(error: Exception) -> str:
    return f"The hub did not answer ({first_line(error)}). The same command tries again."
