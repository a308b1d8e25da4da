"""The two remote services of the pipeline, as one local program for demos and tests.

One port answers as AppXite (`/api/v1/reporting/...`), as ConnectWise PSA (`/v4_6_release/apis/3.0/...`,
`/login/companyinfo/...`) and as the control API of the sandbox itself (`/_sandbox/...`).

    python -m sandbox serve --state DIR --port 0

    from sandbox.server import Sandbox
    with Sandbox(tmp_path) as sandbox:
        requests.get(sandbox.url + "/_sandbox/health")

Modules, from the bottom up:

    wire         JSON with exact decimals, rounding, dates
    store        the state directory: one SQLite file, journal included
    conditions   the `conditions` and `orderBy` query languages of ConnectWise
    fields       which fields a ConnectWise record has, and of which type
    dataset      the seeded data, both sides and the mapping files
    appxite      answers AppXite requests
    connectwise  answers ConnectWise requests
    invoicing    agreement invoicing: how an Addition becomes money
    faults       what goes wrong on demand
    control      the control API
    server       HTTP, and the order in which the above are asked
"""
