"""The stack on one machine: PostgreSQL, the sandbox and Airflow, started and stopped without Docker.

`python -m local_stack --help` lists the commands; `make demo` is the usual way in. Nothing in the pipeline
(`billing_sync`, `dags`, `plugins`) imports this package.
"""
