"""`make screenshots`: the demo, then a picture of each page inside Airflow, light and dark, into docs/pages/."""

from __future__ import annotations

import sys
from pathlib import Path
from urllib.parse import quote

import pandas as pd
import requests
from playwright.sync_api import Browser, Page, sync_playwright
from visit import FLAGS, find_chromium

from billing_sync.db import connect
from billing_sync.mappings import import_mappings
from local_stack.console import say, step
from local_stack.demo import NIGHTLY_DAG, run_demo
from local_stack.errors import StackError
from local_stack.runs import follow
from local_stack.settings import ROOT
from local_stack.stack import Stack

FOLDER = ROOT / "docs" / "pages"
SCREEN = {"width": 1440, "height": 900}
HELD = quote('{"outcomes":["held","awaiting approval"]}')


def main() -> None:
    """Run the demo, leave a plan waiting, and take the pictures."""
    try:
        run_demo(Stack(), stay=False, then=_take_all)
    except StackError as error:
        sys.exit(str(error))


def _take_all(stack: Stack) -> None:
    step("A plan that waits for a person")
    run_id = _let_a_plan_wait(stack)
    chromium = find_chromium()
    if chromium is None:
        raise StackError("No Chromium: install it (Debian: apt-get install chromium) or name it in CHROMIUM.")
    step("Pictures")
    FOLDER.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        for scheme in ("light", "dark"):
            _take(stack, browser, scheme, run_id)
        browser.close()
    say(f"they are in {FOLDER.relative_to(ROOT)}")


def _let_a_plan_wait(stack: Stack) -> str:
    """Somebody maps the offer that held lines, and Automated Daily Sync is off: the next plan waits."""
    stack.billing_sync("settings", "set", "automated_daily_sync", "off")
    with connect(stack.billing_dsn, user="ann") as connection:
        undecided = connection.execute(
            "select offer_id from mapping.offer_mapping where decided_by is null order by offer_id limit 1"
        ).fetchone()
        product = connection.execute(
            "select max(product_id) from mapping.offer_mapping where state = 'approved'"
        ).fetchone()
        if undecided is None or product is None:
            raise StackError("The demo left no offer to map.")
        row = {"offer_id": undecided[0], "product_id": str(product[0]), "state": "approved", "note": ""}
        import_mappings(connection, "offers", pd.DataFrame([row]), approve=True, person="ann")
    run_id = stack.airflow.api.trigger(NIGHTLY_DAG)
    logs = stack.settings.logs / "tasks"
    follow(stack.airflow.api, NIGHTLY_DAG, run_id, check=stack.processes.require_alive, task_logs=logs)
    return run_id


def _take(stack: Stack, browser: Browser, scheme: str, run_id: str) -> None:
    url = stack.settings.airflow_url
    with connect(stack.billing_dsn) as connection:
        plan = connection.execute("select max(plan_id) from delivery.plan").fetchone()
        line = connection.execute(
            "select max(line_id) from reporting.invoice_line where outcome = 'delivered' and charge_type = 'CycleFee'"
        ).fetchone()
    assert plan
    assert line
    ours = {
        "dashboard": "dashboard",
        "organizations": "mapping/organizations",
        "products": "mapping/products",
        "invoices": f"mapping/invoices?filter={HELD}",
        "why": f"mapping/invoices?line={line[0]}",
        "plan": f"plan/{plan[0]}",
        "logs": "logs",
        "authentication": "settings/authentication",
        "configuration": "settings/configuration",
        "dictionary": "settings/dictionary",
    }
    context = browser.new_context(
        viewport=SCREEN, color_scheme=scheme, timezone_id="Europe/Vienna", locale="en-GB", reduced_motion="reduce"
    )
    login = {"username": "admin", "password": stack.credentials.admin_password}
    answer = requests.post(f"{url}/auth/token", json=login, timeout=30)
    answer.raise_for_status()
    context.add_cookies([{"name": "_token", "value": answer.json()["access_token"], "url": url}])
    page = context.new_page()
    for name, path in ours.items():
        page.goto(f"{url}/plugin/connectwise-billing/billing/{path}")
        _picture(page, FOLDER / f"{name}-{scheme}.png")
    page.goto(f"{url}/dags/{NIGHTLY_DAG}/runs/{quote(run_id)}/plugin/billing-run")
    _picture(page, FOLDER / f"run-{scheme}.png")
    context.close()


def _picture(page: Page, path: Path) -> None:
    inside = page.frame_locator("iframe")
    inside.locator("main").wait_for(timeout=60_000)
    inside.locator("[aria-busy='true'], .chakra-skeleton, .chakra-spinner").first.wait_for(
        state="detached", timeout=60_000
    )
    page.wait_for_timeout(1_500)  # charts and drawers move into their place
    page.screenshot(path=path)
    say(path.name)


if __name__ == "__main__":
    main()
