"""Shell lines that load an export into a server without Holdfast."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ._guide import reading

_PROGRAM = """\
import json, os, sys, urllib.error, urllib.parse, urllib.request

url = os.environ.get("CHROMA_URL", "http://localhost:8000").rstrip("/") + "/api/v2/tenants"
headers = {"Content-Type": "application/json"}
if os.environ.get("CHROMA_TOKEN"):
    headers["Authorization"] = "Bearer " + os.environ["CHROMA_TOKEN"]
    headers["X-Chroma-Token"] = os.environ["CHROMA_TOKEN"]

def post(path, body, accept=()):
    data = json.dumps(body).encode()
    request = urllib.request.Request(url + path, data, headers)
    try:
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        if error.code not in accept:
            sys.exit(f"{path}: {error.code} {error.read().decode()}")

def put(place, rows):
    columns = dict(ids="id", embeddings="embedding", documents="document", metadatas="metadata",
                   uris="uri")
    if rows:
        post(place, {name: [row[key] for row in rows] for name, key in columns.items()})

place, rows, done = "", [], False
for line in sys.stdin:
    one = json.loads(line)
    if "id" in one:
        rows.append(one)
        if len(rows) == 250:
            put(place, rows)
            rows = []
    elif "collection" in one:
        one = one["collection"]
        tenant = os.environ.get("CHROMA_TENANT", one["tenant"])
        database = os.environ.get("CHROMA_DATABASE", one["database"])
        path = "/" + urllib.parse.quote(tenant, safe="")
        post("", {"name": tenant}, accept=[409])
        post(path + "/databases", {"name": database}, accept=[409])
        path += "/databases/" + urllib.parse.quote(database, safe="") + "/collections"
        made = {key: one[key] for key in ("name", "metadata", "configuration") if one[key]}
        place = path + "/" + post(path, made)["id"] + "/add"
        print(one["title"])
    elif "records" in one:
        put(place, rows)
        rows = []
    done = "end" in one
if not done:
    sys.exit("the export is not whole: its last line is missing")
"""


def guide_lines(paths: Mapping[str, str]) -> Sequence[str]:
    """Return the lines; ``CHROMA_URL`` and other variables of the program say where to."""
    return [
        "# The server, unless it is http://localhost:8000, and a token if it wants one:",
        "#   export CHROMA_URL=http://... CHROMA_TOKEN=...",
        "# Another tenant or database for all of it: CHROMA_TENANT, CHROMA_DATABASE.",
        'mkdir -p "$TARGET"',
        "cat > \"$TARGET\"/load.py <<'PROGRAM'",
        *_PROGRAM.splitlines(),
        "PROGRAM",
        *(f'{reading(path)} | python3 "$TARGET"/load.py' for path in paths.values()),
    ]
