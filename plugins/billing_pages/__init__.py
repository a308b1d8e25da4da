"""The review pages inside Airflow: a FastAPI app (`app.py`), who may do what (`security.py`), the JSON API (`api/`),
and the front end (`frontend/`, built into `static/`). Thin over `billing_sync`, which knows nothing of HTTP or Airflow.
"""
