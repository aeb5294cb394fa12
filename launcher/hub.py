"""Find out what ``hub:mindspore/1.7/googlenet_cifar10`` stands for: a network, and its weights.

The hub has a page for each model, markdown that begins with what is known of it: where the code
lies, and where the checkpoint, with its SHA-256. Nothing is run here, and no code is fetched.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from launcher.errors import JobError
from launcher.job import Job
from launcher.job_values import HUB
from workers.resharding.errors import ReshardError
from workers.resharding.remote.address import is_url, shown
from workers.resharding.remote.errors import NoSuchFileError
from workers.resharding.remote.store import read_text

URL_VARIABLE = "LAUNCHER_HUB_URL"
DEFAULT_URL = "https://gitee.com/mindspore/hub/raw/master/mshub_res/assets"
CODE = "mindspore_hub_conf.py"  # in the folder of a model, with create_network
PACKAGE = "mindspore_hub"
_FIELD = re.compile(r"(?P<item>-\s+)?(?P<name>[a-z0-9-]+):\s*<?(?P<value>[^<>]*?)>?")
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class AssetPage:
    """What the hub says of a model."""

    name: str  # what create_network knows it by
    repo_link: str
    asset_link: str  # of the checkpoint
    asset_sha256: str


def resolve(job: Job, environment: Mapping[str, str]) -> Job:
    """Return the job with a callable and a URL in the place of names of the hub.

    Raises:
        JobError: the page, the code or the weights of the model are not to be had.
    """
    changes: dict[str, object] = {}
    for key in ("network", "checkpoint"):
        value = getattr(job, key)
        if value is not None and value.startswith(HUB):
            model = value.removeprefix(HUB)
            page = _page(job, model, environment, key)
            changes |= _network(job, model, page) if key == "network" else _checkpoint(page)
    return job.model_copy(update=changes)


def parse_asset_page(text: str, source: str) -> AssetPage:
    """Read the page of a model; ``source`` names it in errors.

    Raises:
        JobError: it lacks what a run needs.
    """
    head = re.split(r"^---.*$", text, maxsplit=2, flags=re.MULTILINE)
    fields: dict[str, str] = {}
    assets: list[dict[str, str]] = []
    for line in head[1].splitlines() if len(head) == 3 else ():
        if line.strip() == "-":
            assets.append({})
        elif match := _FIELD.fullmatch(line.strip()):
            if match["item"]:
                assets.append({})
            inside = assets and line[:1] in " -"
            (assets[-1] if inside else fields)[match["name"]] = match["value"].strip()
    weights = [asset for asset in assets if asset.get("file-format", "").lower() == "ckpt"]
    asset = weights[0] if weights else {}
    missing = [name for name in ("model-name", "repo-link") if not fields.get(name)]
    missing += [name for name in ("asset-link", "asset-sha256") if not asset.get(name)]
    if missing:
        raise JobError.about("hub_url", f"{source} names no {', '.join(missing)}")
    sha256 = asset["asset-sha256"].lower()
    if _DIGEST.fullmatch(sha256) is None:
        raise JobError.about("hub_url", f"{source}: asset-sha256 {sha256!r} is no SHA-256")
    return AssetPage(fields["model-name"], fields["repo-link"], asset["asset-link"], sha256)


def _page(job: Job, model: str, environment: Mapping[str, str], key: str) -> AssetPage:
    base = job.hub_url or environment.get(URL_VARIABLE) or DEFAULT_URL
    place = f"{base.rstrip('/')}/{model}.md"
    try:
        text = read_text(place) if is_url(place) else Path(place).read_text(encoding="utf-8")
    except (NoSuchFileError, FileNotFoundError) as error:
        what = f"the hub has no {model} (there is no {shown(place)})"
        raise JobError.about(key, what, "look for it in the hub's mshub_res/assets") from error
    except (ReshardError, OSError, ValueError) as error:
        raise JobError.about("hub_url", str(error), "name a copy with --hub-url") from error
    return parse_asset_page(text, shown(place))


def _network(job: Job, model: str, page: AssetPage) -> dict[str, object]:
    """Return the callable that makes the network, with its arguments."""
    if job.hub_folder is not None:
        code = job.hub_folder / CODE
        if not code.is_file():
            fix = f"name the folder of a clone of {page.repo_link}"
            raise JobError.about("hub_folder", f"there is no file {code}", fix)
        arguments = {"name": page.name.lower(), **job.network_args}
        return {"network": f"{code}:create_network", "network_args": arguments}
    from launcher.preflight import module_exists  # brings NumPy, which may come later

    if not module_exists(PACKAGE, [*map(str, job.search_path), *sys.path]):
        what = f"the code of {model} is not here, and the package {PACKAGE} is not installed"
        fix = f"clone {page.repo_link} and name its folder with --hub-folder"
        raise JobError.about("network", what, fix)
    if not job.trust_code:
        what = f"{PACKAGE}.load would download {page.repo_link} and run it"
        fix = "say --trust-code if you trust it, or name a folder that you know with --hub-folder"
        raise JobError.about("network", what, fix)
    # Its weights are loaded like all others: by slices, and checked.
    arguments = {"name": model, "pretrained": False, **job.network_args}
    return {"network": f"{PACKAGE}:load", "network_args": arguments}


def _checkpoint(page: AssetPage) -> dict[str, object]:
    link = page.asset_link
    if is_url(link):
        return {"checkpoint": f"{link}#sha256={page.asset_sha256}"}
    raise JobError.about("checkpoint", f"the hub names {link!r}, which is no URL")
