"""Stands in for the sandbox: serves nothing, writes empty mappings."""

import sys
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path

options = dict(zip(sys.argv[2::2], sys.argv[3::2], strict=True))
if sys.argv[1] == "mappings":
    for kind in ("organizations", "offers"):
        (Path(options["--out"]) / f"{kind}.csv").write_text("id\n")
else:
    server = HTTPServer(("127.0.0.1", int(options["--port"])), SimpleHTTPRequestHandler)
    print(f"sandbox ready on http://127.0.0.1:{options['--port']}", flush=True)
    server.serve_forever()
