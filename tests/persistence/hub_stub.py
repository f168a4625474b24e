"""A small Hugging Face Hub on this machine: the part of its HTTP interface that skfdan uses.

Written from the requests that huggingface_hub sends and the answers it reads. Files are always
taken in the "regular" mode (inside the commit); the storage for large files is not imitated.
"""

import base64
import hashlib
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from urllib.parse import unquote, urlsplit

WRITE, READ = "hf_write", "hf_read"  # the two tokens that the stub knows


class Hub:
    """What the stub stores, and what it was asked."""

    def __init__(self):
        self.repos = {}  # "user/name" -> namespace(private, branches: name -> commit)
        self.commits = {}  # commit -> {path: bytes}
        self.requests = []  # namespace(method, path, token, agent)
        self.failure = None  # a status that every request is answered with
        self.url = ""

    def add(self, repo_id, files, *, private=False, branch="main"):
        """Put a repository with these files there, or commit them to a branch of it."""
        repo = self.repos.setdefault(repo_id, SimpleNamespace(private=private, branches={}))
        repo.private = private
        return self.commit(repo_id, branch, files)

    def commit(self, repo_id, branch, files):
        branches = self.repos[repo_id].branches
        tree = {**self.commits.get(branches.get(branch), {}), **files}
        facts = repr((repo_id, branch, len(self.commits), sorted(tree)))
        name = hashlib.sha1(facts.encode()).hexdigest()
        self.commits[name] = tree
        branches[branch] = name
        return name

    def files(self, repo_id, branch="main"):
        return self.commits[self.repos[repo_id].branches[branch]]

    def asked(self, method, part=""):
        return [r for r in self.requests if r.method == method and part in r.path]


class _Refusal(Exception):
    def __init__(self, status, code="", message="", **body):
        super().__init__(status, code, message)
        self.status, self.code, self.message, self.body = status, code, message, body


class _Handler(BaseHTTPRequestHandler):
    hub: Hub

    def log_message(self, *args):
        pass

    def do_HEAD(self):
        self.answer()

    do_GET = do_POST = do_HEAD

    def answer(self):
        size = int(self.headers.get("Content-Length") or 0)
        self.body = self.rfile.read(size)
        path = unquote(urlsplit(self.path).path).strip("/")
        self.token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        self.hub.requests.append(
            SimpleNamespace(
                method=self.command,
                path=path,
                token=self.token,
                agent=self.headers.get("User-Agent", ""),
                body=self.body,
            )
        )
        try:
            if self.hub.failure is not None:
                raise _Refusal(self.hub.failure)
            if self.token not in ("", WRITE, READ):
                raise _Refusal(401, "", "Invalid credentials in Authorization header")
            if path.startswith("api/"):
                self.send(json.dumps(self.api(path.split("/")[1:])).encode())
            else:
                self.resolve(path.split("/"))
        except _Refusal as refusal:
            self.send(
                json.dumps({"error": refusal.message, **refusal.body}).encode(),
                refusal.status,
                **{"X-Error-Code": refusal.code, "X-Error-Message": refusal.message},
            )

    def send(self, body, status=200, **headers):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            if value:
                self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def repo(self, repo_id):
        repo = self.hub.repos.get(repo_id)
        if repo is None or (repo.private and not self.token):
            # The hub does not tell a stranger which private repositories exist.
            raise _Refusal(404 if self.token else 401, "RepoNotFound", "Repository not found")
        return repo

    def tree(self, repo_id, revision):
        repo = self.repo(repo_id)
        commit = repo.branches.get(revision, revision)
        if commit not in self.hub.commits:
            raise _Refusal(404, "RevisionNotFound", "Invalid rev id")
        return commit, self.hub.commits[commit]

    def need_write(self):
        if not self.token:
            raise _Refusal(401, "", "Invalid username or password.")
        if self.token != WRITE:
            raise _Refusal(403, "", "You don't have the rights to write")

    def api(self, parts):
        if self.command == "POST":
            given = [json.loads(line) for line in self.body.splitlines()]
        match [self.command, *parts]:
            case ["POST", "repos", "create"]:
                self.need_write()
                repo_id = f"{given[0]['organization']}/{given[0]['name']}"
                url = f"{self.hub.url}/{repo_id}"
                if repo_id in self.hub.repos:
                    raise _Refusal(409, "", "You already created this model repo", url=url)
                # `private` before huggingface_hub 1.0, `visibility` now
                private = given[0].get("private") or given[0].get("visibility") == "private"
                self.hub.add(repo_id, {".gitattributes": b""}, private=private)
                return {"url": url}
            case ["POST", "validate-yaml"]:
                return {"warnings": [], "errors": []}
            case ["POST", "models", user, name, "branch", branch]:
                self.need_write()
                repo = self.repo(f"{user}/{name}")
                if branch in repo.branches:
                    raise _Refusal(409, "", "Reference already exists")
                repo.branches[branch] = repo.branches["main"]
                return {}
            case ["POST", "models", user, name, "preupload", revision]:
                self.need_write()
                self.tree(f"{user}/{name}", revision)
                return {
                    "files": [
                        {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False}
                        for f in given[0]["files"]
                    ]
                }
            case ["POST", "models", user, name, "commit", branch]:
                self.need_write()
                self.tree(f"{user}/{name}", branch)
                files = {
                    line["value"]["path"]: base64.b64decode(line["value"]["content"])
                    for line in given
                    if line["key"] == "file"
                }
                commit = self.hub.commit(f"{user}/{name}", branch, files)
                url = f"{self.hub.url}/{user}/{name}/commit/{commit}"
                return {"commitUrl": url, "commitOid": commit, "pullRequestUrl": None}
            case ["GET", "models", user, name, *rest]:
                repo_id = f"{user}/{name}"
                commit, files = self.tree(repo_id, rest[1] if rest else "main")
                return {
                    "id": repo_id,
                    "sha": commit,
                    "private": self.hub.repos[repo_id].private,
                    "siblings": [{"rfilename": path} for path in files],
                }
        raise _Refusal(404, "", f"the stub does not know {self.command} {'/'.join(parts)}")

    def resolve(self, parts):
        user, name, _, revision, *path = parts
        commit, files = self.tree(f"{user}/{name}", revision)
        content = files.get("/".join(path))
        if content is None:
            raise _Refusal(404, "EntryNotFound", "Entry not found")
        etag = hashlib.sha256(content).hexdigest()
        self.send(content, ETag=f'"{etag}"', **{"X-Repo-Commit": commit})


@contextmanager
def serve():
    """Run a stub on a free port and give its `Hub`."""
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
