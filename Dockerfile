# The image of every Airflow service in docker-compose.yaml, and of the sandbox: the locked packages and our code.

FROM python:3.12.12-slim-bookworm AS packages
COPY requirements-deploy.lock /tmp/requirements-deploy.lock
RUN python -m venv /opt/venv \
    && /opt/venv/bin/pip install --no-cache-dir --only-binary=:all: --require-hashes -r /tmp/requirements-deploy.lock

FROM node:24.19.0-bookworm-slim AS pages
WORKDIR /build/frontend
COPY plugins/billing_pages/frontend .
RUN npm ci && npm run build

FROM python:3.12.12-slim-bookworm
RUN useradd --uid 50000 --gid 0 --home-dir /opt/airflow --create-home airflow \
    && install --directory --owner=airflow --group=root --mode=0775 /opt/airflow/logs /opt/airflow/sandbox
COPY --from=packages /opt/venv /opt/venv
WORKDIR /opt/airflow
COPY dags dags
COPY plugins plugins
COPY include include
COPY --from=pages /build/static plugins/billing_pages/static
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONPATH=/opt/airflow/include:/opt/airflow/plugins \
    PYTHONUNBUFFERED=1 \
    AIRFLOW_HOME=/opt/airflow \
    AIRFLOW__CORE__DAGS_FOLDER=/opt/airflow/dags \
    AIRFLOW__CORE__PLUGINS_FOLDER=/opt/airflow/plugins \
    AIRFLOW__CORE__LOAD_EXAMPLES=False \
    AIRFLOW__USAGE_DATA_COLLECTION__ENABLED=False
USER 50000
EXPOSE 8080
CMD ["airflow", "api-server"]
