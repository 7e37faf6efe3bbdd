"""Replicate's file store, which keeps for a day what its models are to read."""

from __future__ import annotations

import re
from pathlib import Path

from backend.core.errors import ProviderUnavailable
from backend.providers import reading
from backend.providers.over_http import HttpProvider, looking
from backend.providers.replicate import answers

UPLOAD_S = 300
_URL = re.compile(r"https?://[!-~]{1,2000}")


class Files:
    """Uploads to the account's file store."""

    def __init__(self, api: HttpProvider) -> None:
        self._api = api

    async def upload(self, path: Path, name: str, content_type: str) -> str:
        """POST /files. It may be repeated: a file that is uploaded twice costs nothing."""
        files = {"content": (name, path, content_type)}
        with looking():
            answer = await self._api.call("POST", "/files", files=files, total_s=UPLOAD_S)
            if answer.status not in (200, 201):
                raise answers.upload_refusal(answer, self._api.now())
            url = reading.member(answer.json(), "urls", "get")
        if not isinstance(url, str) or not _URL.fullmatch(url):
            raise ProviderUnavailable("the provider did not say where the file is")
        return url
